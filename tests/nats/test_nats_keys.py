"""Seeds, public keys, signatures and .creds files, held against NATS's documentation and an independent making."""

from __future__ import annotations

import base64

import pytest
from ecdsa import Ed25519, VerifyingKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.sinks.nats.keys import Credentials, public_key, read_credentials, sign
from tests.nats.accounts import ACCOUNT, OPERATOR, Nkey, Site, as_text

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""A pair from NATS's documentation (docs.nats.io, NKeys)."""
PRIVATE_KEYS = st.binary(min_size=32, max_size=32)

slow = settings(max_examples=15, deadline=None)
"""Pure Python takes milliseconds for each key."""


def verifies(public: str, signature: bytes, nonce: str) -> bool:
    """Whether the holder of a public key has signed it; raises BadSignatureError if not."""
    raw = base64.b32decode(public)
    key = VerifyingKey.from_string(raw[1:33], curve=Ed25519)
    return bool(key.verify(base64.b64decode(signature), nonce.encode()))


def test_pair_of_the_documentation() -> None:
    assert public_key(SEED) == PUBLIC
    assert verifies(PUBLIC, sign(SEED, "a nonce"), "a nonce")


def test_space_around_a_seed() -> None:
    assert public_key(f" {SEED}\r\n") == PUBLIC


@slow
@given(PRIVATE_KEYS, st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_any_key_is_read_and_signs(private: bytes, nonce: str) -> None:
    user = Nkey(private=private)
    assert public_key(user.seed) == user.public
    assert verifies(user.public, sign(user.seed, nonce), nonce)
    assert base64.b64decode(sign(user.seed, nonce)) == user.sign(nonce.encode())


USER_SEED = bytes([18 << 3 | 20 >> 5, 20 << 3 & 0xFF])
NO_SEEDS = {
    "nothing": "",
    "one letter": "S",
    "one letter less": SEED[:-1],
    "one letter more": SEED + "A",
    "another checksum": SEED[:-4] + "AAAA",
    "another key": SEED[:20] + "B" + SEED[21:],
    "small letters": SEED.lower(),
    "a digit that base32 has not": SEED[:-1] + "1",
    "a space inside": SEED[:30] + " " + SEED[30:],
    "a letter that is not of ASCII": "Ü" + SEED[1:],
    "a public key": PUBLIC,
    "only the beginning": "SU" + "A" * 56,
    "an account's": Nkey(ACCOUNT, bytes(range(32))).seed,
    "an operator's": Nkey(OPERATOR, bytes(range(32))).seed,
    "31 bytes": as_text(USER_SEED + bytes(31)),
    "33 bytes": as_text(USER_SEED + bytes(33)),
    "no prefix": as_text(bytes(34)),
}


@pytest.mark.parametrize("seed", NO_SEEDS.values(), ids=list(NO_SEEDS))
def test_seed_that_is_none(seed: str) -> None:
    for use in (public_key, lambda text: sign(text, "x")):
        with pytest.raises(ValueError, match=r"^its seed is ") as error:
            use(seed)
        assert "\n" not in str(error.value)
        assert seed not in str(error.value) or len(seed) < 5


@given(st.text() | st.binary().map(lambda raw: base64.b32encode(raw).decode()))
def test_any_text_is_a_seed_or_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^its seed is "):
        public_key(text)


@slow
@given(PRIVATE_KEYS, st.integers(0, 35), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(private: bytes, place: int, change: int) -> None:
    text = Nkey(private=private).seed
    raw = bytearray(base64.b32decode(text + "=" * (-len(text) % 8)))
    raw[place] ^= change
    with pytest.raises(ValueError, match=r"^its seed is "):
        public_key(base64.b32encode(raw).decode().rstrip("="))


def test_credentials_of_an_account() -> None:
    text = Site().credentials()
    found = read_credentials(text)
    assert found.jwt.count(".") == 2
    assert public_key(found.seed).startswith("U")
    assert read_credentials(text.replace("\n", "\r\n")) == found
    assert read_credentials(f"\n{text}\n") == found


def test_credentials_in_short() -> None:
    text = (
        f"-----BEGIN NATS USER JWT-----\na.b.c\n-----END NATS USER JWT-----\n"
        f"-----BEGIN USER NKEY SEED-----\n{SEED}\n-----END USER NKEY SEED-----\n"
    )
    assert read_credentials(text) == Credentials("a.b.c", SEED)


@pytest.mark.parametrize("missing", ["NATS USER JWT", "USER NKEY SEED", "BEGIN", "END"])
def test_credentials_with_a_part_missing(missing: str) -> None:
    text = Site().credentials()
    with pytest.raises(ValueError, match="make it with nsc generate creds"):
        read_credentials(text.replace(missing, "NOTHING"))


def test_credentials_with_a_damaged_seed() -> None:
    text = Site().credentials()
    seed = read_credentials(text).seed
    damaged = seed[:30] + ("A" if seed[30] != "A" else "B") + seed[31:]
    with pytest.raises(ValueError, match=r"^its seed is ") as error:
        read_credentials(text.replace(seed, damaged))
    assert seed[:20] not in str(error.value)


@given(st.text())
def test_any_text_of_a_file_is_read_or_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="make it with nsc generate creds"):
        read_credentials(text)
