"""The signature line before a message over TCP: it holds a time and proves that the sender knows the secret.

The hook loads this module for each event that it signs, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import os

SIGNATURE_MARK = b"HMAC-SHA256 "


def sign(message: bytes, secret: bytes, now: float) -> bytes:
    """Return a message with its signature line, made with the secret at this time (Unix seconds)."""
    stamp = f"{int(now)} {os.urandom(16).hex()}".encode()
    return SIGNATURE_MARK + stamp + b" " + mac_of(stamp, message, secret) + b"\n" + message


def mac_of(stamp: bytes, message: bytes, secret: bytes) -> bytes:
    """Return the proof, in hexadecimal digits, that whoever made the message at that time knows the secret."""
    # Loading the cryptography takes long: only hooks with a secret pay for it.
    signed = stamp + b"\n" + message
    try:
        from _hashlib import hmac_digest  # noqa: PLC0415 - what hmac calls, without what else that loads
    except ImportError:  # a Python without OpenSSL
        from hmac import digest as hmac_digest  # noqa: PLC0415
    return hmac_digest(secret, signed, "sha256").hex().encode()
