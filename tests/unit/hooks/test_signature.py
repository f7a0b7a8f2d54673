"""The line before a message that proves who made it."""

from __future__ import annotations

import hmac
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.hooks import signature_check
from cc_slurm_adapter.hooks.message import BadMessage
from cc_slurm_adapter.hooks.signature import sign
from cc_slurm_adapter.hooks.signature_check import SignatureCheck, split_signature

SECRET = b"a shared secret of some length"
NOW = 1_800_000_000.0


def test_signed_message_is_taken_once() -> None:
    check = SignatureCheck(SECRET)
    signed = sign(b'{"a": 1}', SECRET, NOW)
    assert not signed.startswith(b"{")
    assert check.open(signed, NOW + 1) == b'{"a": 1}'
    with pytest.raises(BadMessage, match="twice"):
        check.open(signed, NOW + 2)
    assert check.open(sign(b'{"a": 1}', SECRET, NOW), NOW) == b'{"a": 1}'


@pytest.mark.parametrize("offset", [-61, 61, 3600, -1e9])
def test_message_of_another_time(offset: float) -> None:
    with pytest.raises(BadMessage, match="clocks differ"):
        SignatureCheck(SECRET).open(sign(b"{}", SECRET, NOW), NOW + offset)


@pytest.mark.parametrize("offset", [-59, 59])
def test_clocks_may_differ_a_little(offset: float) -> None:
    assert SignatureCheck(SECRET).open(sign(b"{}", SECRET, NOW), NOW + offset) == b"{}"


def test_repeated_message_is_refused_as_long_as_it_is_valid() -> None:
    check = SignatureCheck(SECRET)
    early = sign(b"{}", SECRET, NOW)
    assert check.open(early, NOW - 59) == b"{}"
    for later in (NOW, NOW + 30, NOW + 59):
        check.open(sign(b"{}", SECRET, later), later)
        with pytest.raises(BadMessage, match="twice"):
            check.open(early, later)


def test_wrong_secret_and_changed_messages() -> None:
    check = SignatureCheck(SECRET)
    with pytest.raises(BadMessage, match="different secrets"):
        check.open(sign(b"{}", b"another secret, as long", NOW), NOW)
    signed = sign(b'{"SLURM_JOB_ID": "1"}', SECRET, NOW)
    for changed in (signed.replace(b'"1"', b'"2"'), signed.replace(b" 18", b" 19"), signed + b" "):
        with pytest.raises(BadMessage, match="different secrets"):
            check.open(changed, NOW)


@pytest.mark.parametrize("message", [b"", b"{}", b"HMAC-SHA256 ", b"HMAC-SHA256 1 2 3\n{}", b"\xff\n{}"])
def test_unsigned_messages(message: bytes) -> None:
    with pytest.raises(BadMessage, match="not signed"):
        SignatureCheck(SECRET).open(message, NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_the_signature(data: bytes) -> None:
    check = SignatureCheck(SECRET)
    for message in (data, b"HMAC-SHA256 " + data):
        with pytest.raises(BadMessage):
            check.open(message, NOW)


def test_memory_of_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature_check, "REMEMBERED_NONCES", 10)
    check = SignatureCheck(SECRET)
    for _ in range(50):
        check.open(sign(b"{}", SECRET, NOW), NOW)
    assert len(check._seen) == 10
    check.open(sign(b"{}", SECRET, NOW + 500), NOW + 500)
    assert len(check._seen) == 1


def test_the_proof_is_that_of_hmac() -> None:
    line, body = split_signature(sign(b"{}", SECRET, NOW))
    mark, stamp, nonce, proof = line.split()
    signed = stamp + b" " + nonce + b"\n" + body
    assert (mark, proof.decode()) == (b"HMAC-SHA256", hmac.new(SECRET, signed, "sha256").hexdigest())


def test_a_python_without_openssl_signs_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    assert SignatureCheck(SECRET).open(sign(b"{}", SECRET, NOW), NOW) == b"{}"
    monkeypatch.undo()
    assert SignatureCheck(SECRET).open(sign(b"{}", SECRET, NOW), NOW) == b"{}"


def test_both_forms_are_told_apart() -> None:
    assert split_signature(b'{"a": 1}') == (b"", b'{"a": 1}')
    line, body = split_signature(sign(b'{"a": 1}', SECRET, NOW))
    assert line.startswith(b"HMAC-SHA256 1800000000 ")
    assert body == b'{"a": 1}'
