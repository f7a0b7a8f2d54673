"""The proxy of the daemon, which a shell may not have, and that of a shell, which the daemon may not have."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.checks.proxy import environment_of, find_proxy
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit

SHELL = {"HTTPS_PROXY": "http://me:secret@proxy.example.org:3128"}
OTHER = {"https_proxy": "http://proxy2.example.org:3128"}
NO_UNIT = Unit(DEFAULT_UNIT, properties={"LoadState": ["not-found"]})


def unit_with(environment: str = "", **properties: str) -> Unit:
    given = {"LoadState": "loaded", "Environment": environment, **properties}
    return Unit(DEFAULT_UNIT, properties={key: [value] for key, value in given.items() if value})


def find(unit: Unit, environ: dict[str, str], **settings: object) -> list[tuple[int, str]]:
    config, _ = parse_config({"ccRestUrl": "https://cc.example.org", "ccRestJwt": "x", **settings})
    return [(each.level, each.text) for each in find_proxy(config, unit, environ)]


def test_the_unit_s_proxy_counts_and_not_the_shell_s() -> None:
    unit = unit_with("https_proxy=http://proxy2.example.org:3128")
    assert environment_of(unit, SHELL) == OTHER
    assert environment_of(unit_with(), SHELL) == {}
    assert find(unit_with(), SHELL) == [
        (
            logging.INFO,
            f"cc-backend is asked without a proxy, as {DEFAULT_UNIT} sets none, not through HTTPS_PROXY of this shell",
        )
    ]
    assert find(unit, {}) == [(logging.INFO, f"cc-backend is asked through https_proxy of {DEFAULT_UNIT}")]
    assert find(unit, OTHER) == []
    assert find(unit_with(), {}) == []


@pytest.mark.parametrize("unit", [NO_UNIT, unit_with(EnvironmentFiles="/etc/default/x"), Unit("x", "no answer")])
def test_a_shell_s_proxy_that_the_daemon_may_not_have_is_a_warning(unit: Unit) -> None:
    assert environment_of(unit, SHELL) is SHELL
    ((level, text),) = find(unit, SHELL)
    assert level == logging.WARNING
    assert "through HTTPS_PROXY of this shell" in text
    assert "secret" not in text
    assert find(unit, {}) == []


def test_where_the_configuration_decides_or_no_systemd_there_is_nothing_to_say() -> None:
    assert find(NO_UNIT, SHELL, ccRestProxy="none") == []
    assert find(NO_UNIT, SHELL, ccRestUrl="https://127.0.0.1") == []
    assert find(Unit(DEFAULT_UNIT, "no systemd", has_systemd=False), SHELL) == []


def test_what_systemd_has_started_for_the_unit_has_the_environment_of_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"0::/system.slice/{DEFAULT_UNIT}\n")
    started = {**SHELL, "INVOCATION_ID": "1"}
    assert environment_of(unit_with(), started, str(tmp_path)) is started
    (tmp_path / "self" / "cgroup").write_text("0::/user.slice/user-0.slice/session-1.scope\n")
    assert environment_of(unit_with(), started, str(tmp_path)) == {}
