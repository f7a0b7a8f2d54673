"""NKeys and credentials of NATS: reads seeds and signs the server's nonces, in pure Python.

A seed is base32 of two prefix bytes, the 32 bytes of an Ed25519 key, and a CRC-16 (XMODEM) of both, low byte first.

The form is that of nats-io's nkeys:
https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from ecdsa import Ed25519, SigningKey

_USER = 20 << 3
"""The prefix of a user's public key: base32 turns it into a U."""
_SEED = 18 << 3
"""The prefix of a seed: base32 turns it into an S."""
_BLOCK = r"-+BEGIN {}-+\s+(\S+)\s+-+END"


class Credentials(NamedTuple):
    """The contents of a credentials file: the user's JWT, and the seed that signs."""

    jwt: str
    seed: str


def read_credentials(text: str) -> Credentials:
    """Parse the contents of a .creds file. Raises ValueError."""
    jwt = re.search(_BLOCK.format("NATS USER JWT"), text)
    seed = re.search(_BLOCK.format("USER NKEY SEED"), text)
    if not jwt or not seed:
        raise ValueError("it has no block NATS USER JWT or no block USER NKEY SEED: make it with nsc generate creds")
    _key_of(seed.group(1))
    return Credentials(jwt.group(1), seed.group(1))


def public_key(seed: str) -> str:
    """Return a user's public key for the server: U and 55 letters and digits. Raises ValueError."""
    raw = bytes([_USER]) + _key_of(seed).get_verifying_key().to_string()
    return base64.b32encode(raw + _checksum(raw)).decode("ascii").rstrip("=")


def sign(seed: str, nonce: str) -> bytes:
    """Sign a server's nonce. Return the signature in base64."""
    return base64.b64encode(_key_of(seed).sign(nonce.encode("utf-8")))


def _key_of(seed: str) -> SigningKey:
    text = seed.strip()
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError as error:
        raise ValueError("its seed is not base32 text: a seed has 58 capital letters and digits") from error
    body, checksum = raw[:-2], raw[-2:]
    if len(raw) != 36 or _checksum(body) != checksum:
        raise ValueError("its seed is incomplete: a seed has 58 capital letters and digits")
    kind = (body[0] & 7) << 5 | body[1] >> 3
    if body[0] & 0xF8 != _SEED or kind != _USER:
        raise ValueError("its seed is not that of a user: that begins with SU")
    return SigningKey.from_string(body[2:], curve=Ed25519)


def _checksum(raw: bytes) -> bytes:
    return binascii.crc_hqx(raw, 0).to_bytes(2, "little")
