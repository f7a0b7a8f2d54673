"""Everything that is wrong in a configuration, each with what to do, and the values that stand in."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.checks.configuration import find_configuration
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.model import Finding

NO_UNIT = Unit(DEFAULT_UNIT, "no systemd", has_systemd=False)


def find(path: Path, text: object, unit: Unit = NO_UNIT) -> tuple[Config, list[Finding]]:
    file = path / "config.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    file.chmod(0o600)
    return find_configuration(str(file), unit, {}, explicit=True)


def bad(found: list[Finding]) -> dict[str, int]:
    assert all(each.next_step for each in found if each.level >= logging.ERROR)
    return {each.subject: each.level for each in found if each.level > logging.INFO}


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text("secret-token")
    path.chmod(0o600)
    return str(path)


def test_a_right_configuration_is_told_so(tmp_path: Path, token: str) -> None:
    config, found = find(tmp_path, {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": token})
    assert [(each.level, each.subject) for each in found] == [(logging.INFO, "configuration")]
    assert config.cc_rest_url == "https://cc.example.org"


def test_an_unknown_key_is_a_failure_with_the_nearest_name(tmp_path: Path, token: str) -> None:
    settings = {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": token, "slurmPolInterval": 30}
    config, found = find(tmp_path, settings)
    assert bad(found) == {"slurmPolInterval": logging.ERROR}
    assert any("did you mean slurmPollInterval?" in each.text for each in found)
    assert any("the values in" in each.text for each in found)
    assert config.slurm_poll_interval == 60


def test_an_unknown_key_may_have_the_name_of_a_subject(tmp_path: Path, token: str) -> None:
    settings = {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": token, "configuration": 1}
    (unknown,) = [each for each in find(tmp_path, settings)[1] if "unknown key" in each.text]
    assert (unknown.subject, unknown.level) == ("configuration", logging.ERROR)


def test_all_mistakes_are_found_together_and_defaults_stand_in(tmp_path: Path) -> None:
    settings = {"ccRestJwtFile": str(tmp_path / "nowhere"), "slurmPollInterval": "soon", "statePath": 5}
    config, found = find(tmp_path, settings)
    assert bad(found) == {
        "ccRestUrl": logging.ERROR,
        "ccRestJwtFile": logging.ERROR,
        "slurmPollInterval": logging.ERROR,
        "statePath": logging.ERROR,
        "configuration": logging.WARNING,
    }
    assert config.slurm_poll_interval == 60


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_what_is_no_configuration_leaves_all_defaults(tmp_path: Path, text: str) -> None:
    config, found = find(tmp_path, text)
    assert [each.level for each in found] == [logging.ERROR, logging.WARNING]
    assert (config.slurm_poll_interval, config.cc_rest_url) == (60, "")


def test_a_file_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    _, found = find_configuration(str(tmp_path / "nowhere.json"), NO_UNIT, {}, explicit=True)
    assert "does not exist" in found[0].text
    assert found[0].level == logging.ERROR


def test_a_secret_that_all_can_read_is_a_warning(tmp_path: Path, token: str) -> None:
    Path(token).chmod(0o644)
    _, found = find(tmp_path, {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": token})
    assert bad(found) == {"ccRestJwtFile": logging.WARNING}


def test_a_credential_of_the_unit_cannot_be_seen_which_is_no_mistake(tmp_path: Path) -> None:
    settings = {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": "cc-token"}
    unit = Unit(DEFAULT_UNIT, credentials=frozenset({"cc-token"}))
    _, found = find(tmp_path, settings, unit)
    assert bad(found) == {}
    assert any("is a credential" in each.text for each in found if each.subject == "ccRestJwtFile")
    assert bad(find(tmp_path, settings)[1])["ccRestJwtFile"] >= logging.WARNING


def test_a_file_that_the_unit_hides_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr("cc_slurm_adapter.daemon.checks.unit.HOMES", (f"{tmp_path.resolve()}/",))
    unit = Unit(DEFAULT_UNIT, properties={"ProtectHome": ["yes"]})
    settings = {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": token}
    hidden = [each for each in find(tmp_path, settings, unit)[1] if "is hidden from the daemon" in each.text]
    assert [(each.subject, each.level) for each in hidden] == [
        ("configuration", logging.ERROR),
        ("ccRestJwtFile", logging.ERROR),
    ]
    assert all("ProtectHome=read-only" in each.next_step for each in hidden)


@pytest.mark.parametrize(
    ("content", "said", "step"),
    [
        (None, "cannot read", "make that file, or correct the path"),
        ("", "is empty", "write a token of cc-backend with the role api into it, in one line"),
        ("two words", "expected a token", "write a token of cc-backend with the role api into it, in one line"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_one_line_with_its_own_step(
    tmp_path: Path, content: str | None, said: str, step: str
) -> None:
    file = tmp_path / "token-file"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    _, found = find(tmp_path, {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": str(file)})
    (failure,) = [each for each in found if each.level > logging.INFO]
    assert (failure.subject, failure.level, failure.next_step) == ("ccRestJwtFile", logging.ERROR, step)
    assert said in failure.text
