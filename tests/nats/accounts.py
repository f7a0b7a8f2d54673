"""Users, accounts and operators of NATS, made here and now as `nk` and `nsc` would make them.

An nkey is an Ed25519 key. Its public text is base32 of a prefix byte, the 32 bytes of the public key and their CRC-16
(XMODEM), low byte first; a seed has two prefix bytes and the 32 bytes of the private key. A JWT is that of RFC 7519,
signed by the nkey of who issued it. (docs.nats.io: NKeys, and Decentralized JWT Authentication/Authorization)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from ecdsa import Ed25519, SigningKey

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
"""The prefix of each kind: base32 makes O, A and U of them."""
SEED = 18 << 3
AMOUNTS = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
STREAM_AMOUNTS = ("mem_storage", "disk_storage", "streams", "consumer")
UNLIMITED = {"wildcards": True, **dict.fromkeys(AMOUNTS, -1)}
"""What an account may use: -1 is no limit."""

CREDENTIALS = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
The seed below proves who the user is: keep it secret.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""


class Nkey:
    """A new key of one kind: OPERATOR, ACCOUNT or USER. The same 32 bytes make the same key."""

    def __init__(self, kind: int = USER, private: bytes | None = None) -> None:
        key = SigningKey.from_string(private, curve=Ed25519) if private else SigningKey.generate(curve=Ed25519)
        self._key = key
        self.public = as_text(bytes([kind]) + key.verifying_key.to_string())
        self.seed = as_text(bytes([SEED | kind >> 5, kind << 3 & 0xFF]) + key.to_string())

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        signature: bytes = self._key.sign(data)
        return signature


def as_text(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode("ascii").rstrip("=")


def nkey_config(*users: Nkey) -> dict[str, Any]:
    """nats-server's configuration that lets in users who have just an nkey."""
    return {"authorization": {"users": [{"nkey": user.public} for user in users]}}


class Site:
    """An operator with an account for the adapter, both known to the server from its configuration.

    JetStream in this mode wants a system account as well, so there is one.
    """

    def __init__(self) -> None:
        self.operator, self.system, self.account = Nkey(OPERATOR), Nkey(ACCOUNT), Nkey(ACCOUNT)

    def config(self) -> dict[str, Any]:
        """nats-server's configuration, with all accounts in memory."""
        own = {"type": "operator", "version": 2, "system_account": self.system.public}
        accounts = {key.public: self._account_jwt(key, name) for key, name in self._accounts()}
        return {
            "operator": make_jwt(self.operator, self.operator.public, "site", own),
            "system_account": self.system.public,
            "resolver": "MEMORY",
            "resolver_preload": accounts,
        }

    def credentials(self, *, publish: Sequence[str] = (), expires: int | None = None) -> str:
        """The text of a new user's .creds file.

        With `publish` the user may publish to these subjects only; `expires` is in seconds of Unix time.
        """
        user = Nkey(USER)
        allowed = {"allow": list(publish)} if publish else {}
        claims = {"type": "user", "version": 2, "pub": allowed, "sub": {}, "subs": -1, "data": -1, "payload": -1}
        jwt = make_jwt(self.account, user.public, "adapter", claims, expires)
        return CREDENTIALS.format(jwt=jwt, seed=user.seed)

    def _accounts(self) -> list[tuple[Nkey, str]]:
        return [(self.system, "SYS"), (self.account, "cluster")]

    def _account_jwt(self, key: Nkey, name: str) -> str:
        # With streams on the system account the server refuses to start.
        limits = UNLIMITED if key is self.system else {**UNLIMITED, **dict.fromkeys(STREAM_AMOUNTS, -1)}
        claims = {"type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}}
        return make_jwt(self.operator, key.public, name, claims)


def make_jwt(issuer: Nkey, subject: str, name: str, nats: dict[str, Any], expires: int | None = None) -> str:
    """A JWT about the nkey `subject`. `expires` is in seconds of Unix time."""
    claims: dict[str, Any] = {"iat": int(time.time()), "iss": issuer.public, "name": name, "sub": subject, "nats": nats}
    if expires is not None:
        claims["exp"] = expires
    digest = hashlib.sha256(json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode("ascii").rstrip("=")
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{signed}.{base64url(issuer.sign(signed.encode('ascii')))}"


def part(claims: dict[str, Any]) -> str:
    return base64url(json.dumps(claims, separators=(",", ":")).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
