"""The keys of NATS: what is right beside what is wrong, and what they say together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.config import (
    Config,
    read_nats_creds,
    read_nats_seed,
    read_token,
)
from cc_slurm_adapter.config.values import WrongValue, nats_servers, optional_subject
from cc_slurm_adapter.errors import ConfigError
from tests.unit.config.loaded import load_config, parse_config, value_of
from tests.unit.config.test_config import JWT, NEEDED, SEED, problems_of, write

NATS: dict[str, object] = {**NEEDED, "natsServer": "h"}
NATS_ONLY: dict[str, object] = {"natsServer": "h", "ccRestSubmitJobs": False}
CREDS = f"""-----BEGIN NATS USER JWT-----
{JWT}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------"""


def right(**settings: object) -> Config:
    config, warnings = parse_config(settings)
    assert warnings == []
    return config


def only_problem(**settings: object) -> str:
    problems = problems_of(settings)
    assert len(problems) == 1, problems
    return problems[0]


# --- servers


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", []),
        ("h", ["nats://h:4333"]),
        ("nats.example.org", ["nats://nats.example.org:4333"]),
        ("a_b-c.example.org.", ["nats://a_b-c.example.org.:4333"]),
        ("n" * 63, [f"nats://{'n' * 63}:4333"]),
        ("10.0.0.1", ["nats://10.0.0.1:4333"]),
        ("nats://h", ["nats://h:4333"]),
        ("tls://h", ["tls://h:4333"]),
        ("TLS://Host", ["tls://Host:4333"]),
        ("nats://h/", ["nats://h:4333"]),
        ("nats://h:1", ["nats://h:1"]),
        ("tls://h:65535", ["tls://h:65535"]),
        ("h:04222", ["nats://h:4222"]),
        ("[::1]", ["nats://[::1]:4333"]),
        ("tls://[2001:db8::7]", ["tls://[2001:db8::7]:4333"]),
        ("[fe80::1%eth0]:4222", ["nats://[fe80::1%eth0]:4222"]),
        ("a,b", ["nats://a:4333", "nats://b:4333"]),
        ("nats://a:4222, tls://b ,[::1]:1", ["nats://a:4222", "tls://b:4333", "nats://[::1]:1"]),
    ],
)
def test_servers(given: str, used: list[str]) -> None:
    config, _ = parse_config({**NEEDED, "natsServer": given, "natsPort": 4333})
    assert config.nats_servers == tuple(used)


def test_the_port_of_nats_is_4222() -> None:
    assert right(**NATS).nats_servers == ("nats://h:4222",)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("a b", "a b"),
        (" ", ""),
        (",", ""),
        ("a,", ""),
        ("a,,b", ""),
        ("nats://", "nats://"),
        ("h,nats://:4222", "nats://:4222"),
        ("h:", "h:"),
        ("h:0", "h:0"),
        ("h:65536", "h:65536"),
        ("h:123456", "h:123456"),
        ("nats://h:x", "nats://h:x"),
        ("h:4222:1", "h:4222:1"),
        ("nats://h/path", "nats://h/path"),
        ("nats://h#a", "nats://h#a"),
        ("::1", "::1"),
        ("nats://::1", "nats://::1"),
        ("[::1", "[::1"),
        ("[::1]]", "[::1]]"),
        ("[10.0.0.1]", "[10.0.0.1]"),
        ("[h]:4222", "[h]:4222"),
        ("a..b", "a..b"),
        (".a", ".a"),
        ("-a", "-a"),
        ("n" * 64, "n" * 64),
        ("http://h", "http://h"),
        ("ws://h", "ws://h"),
        ("a,wss://h:443", "wss://h:443"),
        ("nats:h", "nats:h"),
        ("nats://nats://h", "nats://nats://h"),
    ],
)
def test_what_is_no_server(given: str, wrong: str) -> None:
    problem = only_problem(**{**NATS, "natsServer": given})
    assert problem.startswith(f"natsServer: got {json.dumps(given)}, expected HOST, nats://HOST[:PORT] or tls://HOST")
    assert problem.endswith(f"; {wrong!r} is none of these")


@pytest.mark.parametrize("value", [7, 0, False, True, ["h"], [], {}])
def test_a_server_that_is_no_text(value: object) -> None:
    problem = only_problem(**{**NATS, "natsServer": value})
    assert problem == f"natsServer: got {json.dumps(value)}, expected text in quotes"


@pytest.mark.parametrize("given", ["nats://u:geheim@h", "geheim@h", "a,tls://u:ge,heim@h:4222", "u:geheim@"])
def test_user_and_password_have_keys_of_their_own(given: str) -> None:
    problem = only_problem(**{**NATS, "natsServer": given})
    assert "natsUser and natsPassword" in problem
    assert "heim" not in problem
    right(**NATS, natsUser="u", natsPassword="geheim")


@given(st.text(alphabet="ab1:/.,[]%- nats@?_", max_size=20))
def test_any_text_is_servers_or_none(text: str) -> None:
    try:
        found = nats_servers(text, lambda _: None)
    except WrongValue:
        return
    config, _ = parse_config({**NATS, "natsServer": text})
    assert len(found) == len(config.nats_servers) == (len(text.split(",")) if text else 0)
    assert all(url.startswith(("nats://", "tls://")) for url in found)
    again, _ = parse_config({**NATS, "natsServer": ",".join(config.nats_servers)})
    assert again.nats_servers == config.nats_servers


# --- subjects


@pytest.mark.parametrize("key", ["natsSubject", "natsNodeSubject"])
@pytest.mark.parametrize("value", ["a", "site.jobs", "a.b.c", "a-b_c", "b\u00e4r", "$a"])
def test_subjects(key: str, value: str) -> None:
    assert value_of(right(**NATS, **{key: value}), key) == value


@pytest.mark.parametrize("key", ["natsSubject", "natsNodeSubject"])
@pytest.mark.parametrize(
    "value", ["a b", " a", "a\n", "a\u00a0", "*", "a.*", "a*", ">", "a.>", ".", ".a", "a.", "a..b", "a...b"]
)
def test_what_is_no_subject(key: str, value: str) -> None:
    problem = only_problem(**NATS, **{key: value})
    assert problem.startswith(f"{key}: got {json.dumps(value)}, expected a subject, for example site.jobs: no white")


def test_jobs_need_a_subject_and_node_states_do_not() -> None:
    assert only_problem(**NATS, natsSubject="") == 'natsSubject: got "", expected a subject, for example jobs'
    assert right(**NATS, natsNodeSubject="").nats_node_subject == ""


def test_jobs_and_node_states_have_subjects_of_their_own() -> None:
    right(**NATS, natsNodeSubject="nodes")
    right(**NATS, natsSubject="a", natsNodeSubject="jobs")
    for settings in ({"natsNodeSubject": "jobs"}, {"natsSubject": "a.b", "natsNodeSubject": "a.b"}):
        problem = only_problem(**NATS, **settings)
        shown = json.dumps(settings["natsNodeSubject"])
        assert problem == f"natsNodeSubject: got {shown}, expected another one than natsSubject"
    assert only_problem(**NATS, natsSubject="*", natsNodeSubject="jobs").startswith("natsSubject: ")


@given(st.text(alphabet="ab.*> \t", max_size=6))
def test_subjects_are_tokens_with_dots_between(text: str) -> None:
    wanted = text == "" or all(token and not set(token) & set("*> \t") for token in text.split("."))
    try:
        optional_subject(text, lambda _: None)
    except WrongValue:
        assert not wanted
    else:
        assert wanted


# --- logging in, and TLS


@pytest.mark.parametrize(("one", "other"), [("natsUser", "natsPassword"), ("natsTlsCertFile", "natsTlsKeyFile")])
def test_keys_that_go_together(one: str, other: str) -> None:
    both = {one: "/a/1", other: "/a/2"}
    right(**NATS, **both)
    for key, missing in ((one, other), (other, one)):
        for nothing in ({}, {missing: ""}):
            problem = only_problem(**NATS, **{key: both[key]}, **nothing)
            assert problem == f"{key}: needs {missing} as well: set both or none of them"
        wrong: dict[str, object] = {**NATS, key: both[key], missing: 7}
        assert only_problem(**wrong).startswith(f"{missing}: got ")


LOGINS: dict[str, dict[str, object]] = {
    "natsUser": {"natsUser": "u", "natsPassword": "p"},
    "natsCredsFile": {"natsCredsFile": "/a/creds"},
    "natsNKeySeedFile": {"natsNKeySeedFile": "/a/seed"},
}


@pytest.mark.parametrize("chosen", LOGINS)
def test_one_way_to_log_in(chosen: str) -> None:
    right(**NATS, **LOGINS[chosen])


@pytest.mark.parametrize(
    "chosen",
    [
        ["natsUser", "natsCredsFile"],
        ["natsUser", "natsNKeySeedFile"],
        ["natsCredsFile", "natsNKeySeedFile"],
        ["natsUser", "natsCredsFile", "natsNKeySeedFile"],
    ],
    ids="-".join,
)
def test_several_ways_to_log_in(chosen: list[str]) -> None:
    settings = {key: value for login in chosen for key, value in LOGINS[login].items()}
    expected = f"{chosen[-1]}: {' and '.join(chosen)} are set, expected only one of them: remove the others"
    assert only_problem(**NATS, **settings) == expected


def test_certificates_need_no_server_with_tls() -> None:
    for server in ("h", "nats://h", "tls://h", "nats://a,tls://b"):
        tls = {"natsTlsCaFile": "/a/ca", "natsTlsCertFile": "/a/cert", "natsTlsKeyFile": "/a/key"}
        config = right(**{**NATS, "natsServer": server}, **tls)
        files = (config.nats_tls_ca_file, config.nats_tls_cert_file, config.nats_tls_key_file)
        assert files == ("/a/ca", "/a/cert", "/a/key")


def test_jet_stream_and_the_delay_of_stops() -> None:
    config = right(**NATS, natsJetStream=True, natsStopDelay=0)
    assert (config.nats_jet_stream, config.nats_stop_delay) == (True, 0)
    assert only_problem(**NATS, natsJetStream="yes") == 'natsJetStream: got "yes", expected true or false'
    assert only_problem(**NATS, natsStopDelay=0.5).startswith("natsStopDelay: got 0.5, expected a whole number from 0")
    config, warnings = parse_config({**NATS, "natsStopDelay": -1})
    assert (config.nats_stop_delay, warnings) == (0, ["natsStopDelay: -1 is below 0, using 0"])


# --- files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """All that the keys may name, as only its owner can read it."""
    texts = {
        "natsCredsFile": CREDS,
        "natsNKeySeedFile": SEED,
        "natsTlsCaFile": "-----BEGIN",
        "natsTlsCertFile": "-----BEGIN",
        "natsTlsKeyFile": "-----BEGIN",
    }
    found = {key: tmp_path / key for key in texts}
    for key, path in found.items():
        path.write_text(texts[key] + "\n", encoding="ascii")
        path.chmod(0o600)
    return found


def with_files(files: dict[str, Path], *left_out: str) -> dict[str, object]:
    return {**NATS, **{key: str(path) for key, path in files.items() if key not in left_out}}


def load(folder: Path, settings: dict[str, object]) -> tuple[Config, list[str]]:
    return load_config(write(folder, settings), explicit=True)


def test_files_that_can_be_read(tmp_path: Path, files: dict[str, Path]) -> None:
    config, warnings = load(tmp_path, with_files(files, "natsNKeySeedFile"))
    assert (read_nats_creds(config), read_nats_seed(config), warnings) == (CREDS, "", [])

    config, warnings = load(tmp_path, with_files(files, "natsCredsFile"))
    assert (read_nats_creds(config), read_nats_seed(config), warnings) == ("", SEED, [])
    files["natsNKeySeedFile"].write_text("another", encoding="ascii")
    assert read_nats_seed(config) == "another", "it is read again"


@pytest.mark.parametrize(
    "key", ["natsCredsFile", "natsNKeySeedFile", "natsTlsCaFile", "natsTlsCertFile", "natsTlsKeyFile"]
)
def test_files_that_cannot_be_read(tmp_path: Path, files: dict[str, Path], key: str) -> None:
    settings = with_files(files, "natsCredsFile" if key == "natsNKeySeedFile" else "natsNKeySeedFile")
    load(tmp_path, settings)
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, {**settings, key: str(path)})
        assert caught.value.problems == [f"{tmp_path}/config.json: {key}: cannot read {path}: {why}"]


@pytest.mark.parametrize("key", ["natsCredsFile", "natsNKeySeedFile"])
@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", b"x" * 70_000])
def test_files_that_hold_no_secret(tmp_path: Path, files: dict[str, Path], key: str, content: bytes) -> None:
    files[key].write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**NATS, key: str(files[key])})
    (problem,) = caught.value.problems
    assert f"{key}: {files[key]} " in problem


@pytest.mark.parametrize("key", ["natsCredsFile", "natsNKeySeedFile", "natsTlsKeyFile"])
def test_secret_files_that_everyone_can_read(tmp_path: Path, files: dict[str, Path], key: str) -> None:
    settings = with_files(files, "natsCredsFile" if key == "natsNKeySeedFile" else "natsNKeySeedFile")
    for mode, warned in ((0o640, False), (0o644, True)):
        files[key].chmod(mode)
        _, warnings = load(tmp_path, settings)
        expected = (
            f"{tmp_path}/config.json: {key}: everyone on this host can read {files[key]}: run chmod o-r {files[key]}"
        )
        assert warnings == ([expected] if warned else [])


def test_certificates_may_be_read_by_everyone(tmp_path: Path, files: dict[str, Path]) -> None:
    for key in ("natsTlsCaFile", "natsTlsCertFile"):
        files[key].chmod(0o644)
    assert load(tmp_path, with_files(files, "natsCredsFile"))[1] == []


def test_a_password_that_everyone_can_read(tmp_path: Path) -> None:
    path = write(tmp_path, {**NATS_ONLY, "natsUser": "u", "natsPassword": "geheim"}, 0o644)
    (warning,) = load_config(path, explicit=True)[1]
    assert f"natsPassword: everyone on this host can read {path}, and natsPassword in it" in warning
    assert warning.endswith(f"run chmod o-r {path}")
    assert "geheim" not in warning


def test_seed_in_place_of_its_file_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**NATS, "natsNKeySeedFile": SEED})
    assert SEED not in str(caught.value)
    assert "natsNKeySeedFile: cannot read a text that may contain a secret" in str(caught.value)


def test_systemd_credentials(tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**with_files(files, "natsCredsFile"), "natsNKeySeedFile": "natsNKeySeedFile"}
    settings["natsTlsKeyFile"] = "natsTlsKeyFile"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    config, warnings = load(tmp_path, settings)
    assert (read_nats_seed(config), warnings) == (SEED, [])
    assert config.nats_tls_key_file == str(tmp_path / "natsTlsKeyFile")


# --- without a server, and without REST


@pytest.mark.parametrize(
    "wrong", [{"natsPort": 0}, {"natsPort": 65536}, {"natsSubject": ""}, {"natsPort": "x"}, {"natsNodeSubject": ">"}]
)
def test_nats_settings_matter_only_with_a_server(wrong: dict[str, object]) -> None:
    problem = only_problem(**NATS, **wrong)
    for more in ({}, {"natsServer": ""}, {"natsServer": None}):
        config, warnings = parse_config({**NEEDED, **wrong, **more})
        assert warnings == [f"{problem}; ignored because natsServer is not set"]
        assert (config.nats_port, config.nats_subject, config.nats_node_subject) == (4222, "jobs", "")


def test_what_is_ignored_without_a_server_is_told(tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "natsPort": 4333,
        "natsNodeSubject": "jobs",
        "natsUser": "u",
        "natsCredsFile": "/nowhere/creds",
        "natsTlsKeyFile": "/nowhere/key",
        "natsJetStream": True,
    }
    _, warnings = load(tmp_path, {**NEEDED, **settings})
    assert warnings == [f"{tmp_path}/config.json: {key}: ignored because natsServer is not set" for key in settings]
    assert parse_config({**NEEDED, "natsPort": 4222, "natsSubject": "jobs", "natsUser": ""})[1] == []


def test_problems_are_told_beside_a_wrong_server(tmp_path: Path) -> None:
    settings = {"natsServer": "http://h", "natsUser": "u", "natsCredsFile": "/nowhere/creds", "natsNodeSubject": "jobs"}
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**NEEDED, **settings})
    keys = [problem.split(": ")[1] for problem in caught.value.problems]
    assert keys == ["natsServer", "natsUser", "natsCredsFile", "natsNodeSubject", "natsCredsFile"]


def test_nats_alone() -> None:
    config = right(**NATS_ONLY)
    assert (config.cc_rest_submit_jobs, config.cc_rest_url, config.nats_servers) == (False, "", ("nats://h:4222",))
    for nothing in ({}, {"natsServer": ""}):
        problem = only_problem(ccRestSubmitJobs=False, **nothing)
        assert problem == "natsServer: is missing and ccRestSubmitJobs is false: set it, or that to true"
    assert only_problem(ccRestSubmitJobs=False, natsServer="ws://h").startswith('natsServer: got "ws://h", ')


def test_comparisons_beside_nats_need_the_token() -> None:
    config = right(**NATS_ONLY, **NEEDED)
    assert (config.cc_rest_url, read_token(config)) == ("https://cc.example.org", "aa.bb.cc")
    for url in ("http://h", "ftp://h"):
        problems = problems_of({**NATS_ONLY, "ccRestUrl": url})
        assert problems[-1].startswith("ccRestJwt: is missing")
        assert len(problems) == (1 if url == "http://h" else 2)


def test_reporting_over_rest_needs_the_url_also_beside_nats() -> None:
    right(**NATS)
    for submit in ({}, {"ccRestSubmitJobs": True}):
        problem = only_problem(natsServer="h", ccRestJwt="t", **submit)
        assert problem == "ccRestUrl: is missing, expected the address of cc-backend"
    assert only_problem(natsServer="h", ccRestJwt="t", ccRestSubmitJobs="no").startswith("ccRestSubmitJobs: got ")


def test_what_is_ignored_without_a_url_is_told(tmp_path: Path) -> None:
    unused = {"ccRestJwt": "t", "ccRestJwtFile": "/nowhere/token", "ccRestCaFile": "/nowhere/ca"}
    _, warnings = load(tmp_path, {**NATS_ONLY, **unused})
    assert warnings == [f"{tmp_path}/config.json: {key}: ignored because ccRestUrl is not set" for key in unused]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**NATS_ONLY, **unused, "ccRestUrl": "http://h"})
    told = str(caught.value)
    assert "/nowhere/token" in told
    assert "/nowhere/ca" in told
