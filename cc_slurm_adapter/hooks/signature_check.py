"""Checks the signature line before a message over TCP, and that no message comes twice."""

from __future__ import annotations

import hmac
import re
import time

from cc_slurm_adapter.hooks.message import MAX_MESSAGE, BadMessage
from cc_slurm_adapter.hooks.signature import SIGNATURE_MARK, mac_of

CLOCK_TOLERANCE = 60.0
"""Seconds by which the clocks of a node and the daemon's host may differ."""
REMEMBERED_NONCES = 20_000
"""Most nonces of messages that are remembered, so that nobody can fill the memory."""
_SIGNATURE = rb"HMAC-SHA256 ([0-9]{1,12}) ([0-9a-f]{32}) ([0-9a-f]{64})"
MAX_SIGNED_MESSAGE = MAX_MESSAGE + 128


def split_signature(message: bytes) -> tuple[bytes, bytes]:
    """Return the signature line (b'' if there is none) and the JSON. A JSON object never begins like a signature."""
    if not message.startswith(SIGNATURE_MARK):
        return b"", message
    line, _, body = message.partition(b"\n")
    return line, body


class SignatureCheck:
    """Checks signed messages and accepts each only once."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._seen: dict[bytes, float] = {}

    def open(self, message: bytes, now: float | None = None) -> bytes:
        """Return the JSON of a signed message. Raises BadMessage. `now` is in Unix seconds."""
        now = time.time() if now is None else now
        line, body = split_signature(message)
        match = re.fullmatch(_SIGNATURE, line)
        if match is None:
            raise BadMessage("the message is not signed: the hook needs the same prepSecretFile")
        self._check_mac(match, body)
        made = float(match[1])
        if abs(now - made) > CLOCK_TOLERANCE:
            raise BadMessage(f"the message is {now - made:.0f} s old: repeated, or the clocks differ")
        self._remember(match[2], now)
        return body

    def _check_mac(self, match: re.Match[bytes], body: bytes) -> None:
        expected = mac_of(match[1] + b" " + match[2], body, self._secret)
        if not hmac.compare_digest(expected, match[3]):
            raise BadMessage("the signature is wrong: hook and daemon have different secrets in prepSecretFile")

    def _remember(self, nonce: bytes, now: float) -> None:
        if nonce in self._seen:
            raise BadMessage("the message was sent twice")
        self._seen[nonce] = now
        # A message is valid for the tolerance before and after its time; later its time alone refuses it.
        while self._seen:
            oldest = next(iter(self._seen))
            if now - self._seen[oldest] <= 2 * CLOCK_TOLERANCE and len(self._seen) <= REMEMBERED_NONCES:
                return
            del self._seen[oldest]
