"""A configuration that is read again: what is put in force, what is refused, and what is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.config.changes import Changes
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.reload import ConfigReloader, Found
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.errors import ConfigError, UnreadableFile
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import Finding


class Site:
    """A configuration file, and what a reload of it does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.json"
        self.token = folder / "token"
        self.token.write_text("secret-token")
        self.token.chmod(0o600)
        self.settings: dict[str, Any] = {"ccRestUrl": "https://cc.example.org", "ccRestJwtFile": str(self.token)}
        self.applied: list[Config] = []
        self.error: Exception | None = None
        self.write()
        config, findings = load_config(str(self.path), explicit=True)
        self.board = StatusBoard(str(self.path), str(folder / "state.sqlite"), 0, Counters())
        self.reloader = ConfigReloader(str(self.path), Found(config, tuple(findings)), self.board, self._apply)

    def _apply(self, config: Config, waiting: tuple[str, ...]) -> None:
        if self.error:
            raise self.error
        self.applied.append(config)
        self.waiting = waiting

    def write(self, **settings: Any) -> None:
        self.settings.update(settings)
        self.path.write_text(json.dumps(self.settings))
        self.path.chmod(0o600)

    def findings(self) -> list[tuple[int, str]]:
        return [(each.level, each.text) for each in self.board.collect().findings]


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(NOTICE)
    return Site(tmp_path)


def test_what_has_changed_is_put_in_force_and_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(slurmPollInterval=30, ignoreUsers="^monitor$")
    site.reloader.reload("SIGHUP")
    (config,) = site.applied
    assert config.slurm_poll_interval == 30
    assert config.ignore_users is not None
    (record,) = caplog.records
    assert record.levelno == NOTICE
    assert record.getMessage() == (
        f"SIGHUP: read {site.path} again, in force now: slurmPollInterval, ignoreUsers; secrets are read again"
    )
    assert site.findings() == []


def test_without_a_change_only_the_secrets_are_read_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.reloader.reload("SIGHUP")
    assert len(site.applied) == 1
    (line,) = caplog.messages
    assert line == f"SIGHUP: read {site.path} again, nothing in it has changed; secrets are read again"


def test_what_needs_a_restart_is_named_in_the_log_and_by_status_until_it_is_changed_back(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.write(slurmPollInterval=30, statePath="/var/lib/x/state.sqlite", metricsListen="127.0.0.1:9517")
    text = f"metricsListen, statePath have changed in {site.path} and will be in force after a restart"
    for _ in range(2):
        site.reloader.reload("SIGHUP")
        assert site.findings() == [(logging.WARNING, text)]
    assert [config.metrics_listen for config in site.applied] == [None, None]
    line = f"{text}: systemctl restart cc-slurm-adapter, which loses nothing"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [line] * 2
    del site.settings["statePath"], site.settings["metricsListen"]
    site.write()
    site.reloader.reload("SIGHUP")
    assert site.findings() == []


def test_a_token_is_not_sent_to_the_address_before(site: Site) -> None:
    site.write(ccRestUrl="https://new.example.org", ccRestJwtFile="", ccRestJwt="new-token")
    site.reloader.reload("SIGHUP")
    (config,) = site.applied
    assert (config.cc_rest_url, config.cc_rest_jwt) == ("https://cc.example.org", "")
    assert config.cc_rest_jwt_file == str(site.token)
    assert set(site.waiting) == {"ccRestUrl", "ccRestJwt", "ccRestJwtFile"}


def test_a_broken_configuration_is_refused_with_all_its_problems(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(slurmPollInterval="often", ignoreUsers="(", jobScriptMaxBytes=5)
    site.reloader.reload("SIGHUP")
    assert site.applied == []
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    beginning = f"SIGHUP: the configuration is refused, the one before stays in force: {site.path}: "
    assert [line.partition(beginning)[2].partition(":")[0] for line in caplog.messages] == [
        "slurmPollInterval",
        "ignoreUsers",
    ]
    assert all(line.endswith(": correct it, then systemctl reload cc-slurm-adapter") for line in caplog.messages)
    faults = [fault for fault in site.board.collect().faults if fault.subject == "configuration"]
    assert [fault.level for fault in faults] == [logging.ERROR] * 2
    site.write(slurmPollInterval=60, ignoreUsers="")
    site.reloader.reload("SIGHUP")
    assert site.findings() == []
    assert [config.job_script_max_bytes for config in site.applied] == [5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"ccRestUrl": "https://x"}', "ccRestJwt"),
    ],
)
def test_a_file_that_is_none_is_refused(
    site: Site, caplog: pytest.LogCaptureFixture, text: str | None, words: str
) -> None:
    if text is None:
        site.path.unlink()
    else:
        site.path.write_text(text)
    site.reloader.reload("SIGHUP")
    assert site.applied == []
    (line,) = caplog.messages
    assert words in line
    with pytest.raises(ConfigError, match=words):
        site.reloader.preview()


@pytest.mark.parametrize("key", ["ccRestJwtFile", "ccRestCaFile", "prepSecretFile", "natsCredsFile", "natsTlsCaFile"])
def test_a_secret_or_certificate_that_cannot_be_used_is_refused(
    site: Site, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    empty = site.path.with_name("empty")
    empty.write_text("")
    site.write(natsServer="tls://127.0.0.1:4222", **{key: str(empty)})
    site.reloader.reload("SIGHUP")
    assert site.applied == []
    assert len(caplog.messages) == 1
    assert key in caplog.text
    assert [level for level, _ in site.findings()] == [logging.ERROR]


def test_a_secret_that_vanishes_meanwhile_is_refused_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(slurmPollInterval=30)
    site.error = UnreadableFile(["prepSecretFile: cannot read it"])
    site.reloader.reload("SIGHUP")
    assert "SIGHUP: the configuration is refused, the one before stays in force: prepSecretFile" in caplog.text
    site.error = None
    site.reloader.reload("SIGHUP")
    assert [config.slurm_poll_interval for config in site.applied] == [30]


def test_nothing_secret_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(ccRestJwtFile="", ccRestJwt="new secret", ccRestProxy="http://user:pass word@proxy:1")
    site.reloader.reload("SIGHUP")
    site.write(ccRestJwt="new-secret", ccRestProxy="http://user:password@proxy:1")
    site.reloader.reload("SIGHUP")
    assert "ccRestJwt" in caplog.text
    for secret in ("new secret", "new-secret", "pass word", "password@", "secret-token"):
        assert secret not in caplog.text


def test_warnings_are_logged_when_they_are_new_and_are_those_of_the_newest_configuration(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.write(slurmPolInterval=5)
    site.reloader.reload("SIGHUP")
    site.reloader.reload("SIGHUP")
    unknown = f"{site.path}: slurmPolInterval: unknown key, ignored; did you mean slurmPollInterval?"
    assert caplog.messages.count(unknown) == 1
    assert site.findings() == [(logging.WARNING, unknown)]
    del site.settings["slurmPolInterval"]
    site.write()
    site.reloader.reload("SIGHUP")
    assert site.findings() == []


def test_what_was_found_about_a_key_is_forgotten_when_it_changes(site: Site) -> None:
    for key in ("gpuPciAddrs", "hooks"):
        site.board.keep_findings(Finding(logging.WARNING, key, f"{key} is odd"))
    assert len(site.findings()) == 2
    site.write(gpuPciAddrs={"^node": []})
    site.reloader.reload("SIGHUP")
    assert site.findings() == [(logging.WARNING, "hooks is odd")]


def test_a_preview_changes_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(slurmPollInterval=30, clusterName="other")
    assert site.reloader.preview() == Changes(("slurmPollInterval",), ("clusterName",))
    assert (site.applied, caplog.messages, site.findings()) == ([], [], [])
