"""What the packages do on a host when they are installed, upgraded, removed and purged, each called as dpkg and rpm do.

The scripts run with stand-ins for the programs of a host, and with its folders in a folder of the test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from packages.__main__ import make_packages
from packages.scripts import deb_scripts, rpm_scripts
from tests.fakes.programs import FakePrograms
from tests.packages.conftest import write_stand_in
from tests.packages.reading import Rpm, need_root, read_ar, read_tar

SCRIPTS = {**deb_scripts(), **rpm_scripts()}
OF_THE_HOST = (
    *("sh", "cat", "env", "grep", "head", "id", "mkdir", "rm", "rmdir", "sed", "sleep", "sort", "timeout", "tr"),
)
"""Programs that every host has; all others are made by the test."""
PROGRAM = "/usr/sbin/cc-slurm-adapter"
UNITS = ("cc-slurm-adapter.service", "cc-slurm-adapter@*.service")
TRY_RESTART = f"systemctl try-restart {' '.join(UNITS)}"
SYSUSERS, TMPFILES = (f"systemd-{name} cc-slurm-adapter.conf" for name in ("sysusers", "tmpfiles --create"))
FIRST_INSTALL = {"deb": ("postinst", "configure", ""), "rpm": ("post", "1")}
UPGRADE = {"deb": ("postinst", "configure", "0.0.9"), "rpm": ("post", "2")}
BEFORE_REMOVAL = {"deb": ("prerm", "remove"), "rpm": ("preun", "0")}
AFTER_REMOVAL = {"deb": ("postrm", "remove"), "rpm": ("postun", "0")}
FORMATS = ("deb", "rpm")
HOOK_SCRIPTS = {"PrologSlurmctld": "prolog", "EpilogSlurmctld": "other"}


class Ran(NamedTuple):
    """What came of a script."""

    code: int
    output: str
    errors: str
    calls: Sequence[str]
    """The stand-ins that were called, with their arguments."""

    @property
    def words(self) -> str:
        """Everything that was said, with single blanks."""
        return " ".join(f"{self.output} {self.errors}".replace("cc-slurm-adapter: ", "").split())


class Site:
    """A host: a Debian with systemd, Slurm's group, and nothing of this program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = FakePrograms(folder / "bin")
        for name in OF_THE_HOST:
            found = shutil.which(name)
            assert found
            (self.programs.folder / name).symlink_to(found)
        self.make("/run/systemd/system/")
        self.make("/usr/lib/systemd/system/cc-slurm-adapter.service")
        self.make("/usr/lib/systemd/system/cc-slurm-adapter@.service")
        for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "useradd", "getent"):
            self.stand_in(name)
        self.stand_in("id", "exit 1")

    def stand_in(self, name: str, script: str = "") -> None:
        """A program that notes its call and then runs a script."""
        (self.programs.folder / name).unlink(missing_ok=True)
        note = f'echo "{name} $*" >> {self.folder}/calls'
        self.programs.make(name, f"{note}\n{script}")

    def without(self, *names: str) -> None:
        for name in names:
            (self.programs.folder / name).unlink()

    def path(self, place: str) -> Path:
        return self.folder / place.lstrip("/")

    def make(self, place: str, text: str = "") -> None:
        """A file, or a folder if the place ends with a slash."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if place.endswith("/"):
            path.mkdir()
        else:
            path.write_text(text)

    def run(self, name: str, *arguments: str, **settings: str) -> Ran:
        """Run a script as the package's program does."""
        text = re.sub(r"(?<![\w/}])/(run|etc|var/lib|usr/lib|usr/local)/", rf"{self.folder}/\1/", SCRIPTS[name])
        environment = {"PATH": str(self.programs.folder), **settings}
        command = ["/bin/sh", "-c", text, "sh", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        calls = self.folder / "calls"
        noted = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        output, errors = (part.replace(str(self.folder), "") for part in (done.stdout, done.stderr))
        return Ran(done.returncode, output, errors, noted)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- the scripts themselves


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_a_shell_reads_it(name: str) -> None:
    done = subprocess.run(["sh", "-n"], input=SCRIPTS[name], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_dpkg_gets_them_as_programs(made: tuple[Path, Path]) -> None:
    control = read_tar(read_ar(made[0])["control.tar.gz"])
    for name, text in deb_scripts().items():
        assert (control[f"/{name}"].mode & 0o777, control[f"/{name}"].content) == (0o755, text.encode())
        assert text.startswith("#!/bin/sh\nset -e\n")


def test_rpm_gets_the_same(made: tuple[Path, Path], rpm: Rpm) -> None:
    for name, text in rpm_scripts().items():
        tag = {"post": "POSTIN", "preun": "PREUN", "postun": "POSTUN"}[name]
        assert rpm.output("-qp", "--qf", f"%{{{tag}PROG}}\n%{{{tag}}}", made[1]) == f"/bin/sh\n{text}"


# --- installed for the first time


@pytest.mark.parametrize("kind", FORMATS)
def test_the_first_installation_starts_nothing_and_says_what_is_next(site: Site, kind: str) -> None:
    ran = site.run(*FIRST_INSTALL[kind])
    assert (ran.code, ran.errors) == (0, "")
    assert [call for call in ran.calls if not call.startswith("getent")] == [
        SYSUSERS,
        TMPFILES,
        "systemctl daemon-reload",
    ]
    steps = ("cc-slurm-adapter -install", "cc-slurm-adapter -check", "systemctl enable --now cc-slurm-adapter")
    said = [ran.output.index(step) for step in steps]
    assert said == sorted(said)


@pytest.mark.parametrize("kind", FORMATS)
def test_without_systemds_programs_the_user_is_made_in_the_old_way(site: Site, kind: str) -> None:
    site.without("systemd-sysusers", "systemd-tmpfiles", "systemctl")
    site.path("/run/systemd/system").rmdir()
    ran = site.run(*FIRST_INSTALL[kind])
    assert ran.code == 0
    (useradd,) = [call for call in ran.calls if call.startswith("useradd")]
    assert {"--system", "/usr/sbin/nologin", "cc-slurm-adapter"} <= set(useradd.split())
    assert "/run/cc-slurm-adapter must be made at each boot" in ran.words


@pytest.mark.parametrize("kind", FORMATS)
def test_a_user_that_is_there_stays_as_it_is(site: Site, kind: str) -> None:
    site.without("systemd-sysusers")
    site.stand_in("id", "echo 998")
    assert "useradd" not in " ".join(site.run(*FIRST_INSTALL[kind]).calls)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_chroot_without_a_running_systemd_gets_the_user_and_no_more(site: Site, kind: str) -> None:
    site.path("/run/systemd/system").rmdir()
    for step in (FIRST_INSTALL, UPGRADE):
        ran = site.run(*step[kind])
        assert ran.code == 0
        assert SYSUSERS in ran.calls
        assert [call for call in ran.calls if call.startswith("systemctl")] == []


@pytest.mark.parametrize("kind", FORMATS)
def test_the_group_of_slurm_is_not_made_and_what_to_do_later_is_said(site: Site, kind: str) -> None:
    site.stand_in("getent", "exit 2")
    ran = site.run(*FIRST_INSTALL[kind])
    assert ran.code == 0
    assert TMPFILES not in ran.calls
    assert "no group slurm yet" in ran.words
    assert "systemd-tmpfiles --create cc-slurm-adapter.conf" in ran.words
    assert [call for call in ran.calls if call.startswith("groupadd")] == []


@pytest.mark.parametrize("kind", FORMATS)
def test_the_administrators_file_of_folders_needs_no_group_slurm(site: Site, kind: str) -> None:
    """By its name alone systemd takes the one in /etc."""
    site.stand_in("getent", "exit 2")
    site.make("/etc/tmpfiles.d/cc-slurm-adapter.conf")
    assert TMPFILES in site.run(*FIRST_INSTALL[kind]).calls


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("program", ["systemd-sysusers", "systemd-tmpfiles", "systemctl", "useradd"])
def test_whatever_fails_it_is_installed(site: Site, kind: str, program: str) -> None:
    site.stand_in(program, "exit 1")
    assert site.run(*FIRST_INSTALL[kind]).code == 0
    assert site.run(*UPGRADE[kind]).code == 0


def test_what_has_failed_is_said_with_what_to_do(site: Site) -> None:
    for name in ("systemd-sysusers", "systemd-tmpfiles", "systemctl", "useradd"):
        site.stand_in(name, "exit 1")
    ran = site.run(*UPGRADE["deb"])
    for text in ("make one before the daemon", TMPFILES, "systemctl daemon-reload", "systemctl status"):
        assert text in " ".join(ran.errors.replace("cc-slurm-adapter: ", "").split())


# --- beside an installation by hand


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("step", [FIRST_INSTALL, UPGRADE], ids=["install", "upgrade"])
def test_files_of_an_installation_by_hand_are_named_and_left_alone(
    site: Site, kind: str, step: dict[str, tuple[str, ...]]
) -> None:
    units = [f"/etc/systemd/system/cc-slurm-adapter{at}.service" for at in ("", "@")]
    for place in ["/usr/local/sbin/cc-slurm-adapter", *units]:
        site.make(place)
        assert f"rm {place}" in site.run(*step[kind]).errors.replace("\n", " ")
        assert site.path(place).exists()
    said = site.run(*step[kind]).words
    assert said.index("Let slurm.conf") < said.index("rm /usr/local/sbin/cc-slurm-adapter")


# --- upgraded


@pytest.mark.parametrize("kind", FORMATS)
def test_an_upgrade_restarts_what_runs_after_systemd_has_read_the_units(site: Site, kind: str) -> None:
    site.stand_in("systemctl", 'if [ "$1" = list-units ]; then echo "cc-slurm-adapter.service loaded active"; fi')
    ran = site.run(*UPGRADE[kind])
    assert (ran.code, ran.output, ran.errors) == (0, "", "")
    assert [call for call in ran.calls if call.startswith("systemctl")][:2] == ["systemctl daemon-reload", TRY_RESTART]
    assert [call for call in ran.calls if re.match(r"systemctl (start|enable|stop|disable|restart)\b", call)] == []


@pytest.mark.parametrize("kind", FORMATS)
def test_where_no_daemon_runs_an_upgrade_says_so(site: Site, kind: str) -> None:
    assert "systemctl enable --now cc-slurm-adapter" in site.run(*UPGRADE[kind]).output


@pytest.mark.parametrize(
    "call",
    [
        *(("prerm", "upgrade", "0.2.0"), ("prerm", "deconfigure", "in-favour"), ("prerm", "failed-upgrade", "0.0.9")),
        *(("postrm", "upgrade", "0.2.0"), ("postrm", "failed-upgrade", "0.0.9"), ("postrm", "disappear", "x")),
        *(("postrm", "abort-install"), ("postrm", "abort-upgrade", "0.0.9"), ("postinst", "abort-remove")),
        *(("postinst", "abort-upgrade", "0.2.0"), ("preun", "1"), ("postun", "1")),
    ],
    ids=" ".join,
)
def test_the_other_calls_change_and_say_nothing(site: Site, call: tuple[str, ...]) -> None:
    """The old version's scripts during an upgrade above all: hooks come all the time, and the daemon runs on."""
    assert site.run(*call) == Ran(0, "", "", [])


# --- removed


HOOKS_24 = """\
Epilog[0]               = /opt/site/epilog
EpilogSlurmctld[0]      = /opt/site/epilog
Prolog                  = (null)
PrologSlurmctld[0]      = /usr/sbin/cc-slurm-adapter
"""
HOOKS_22 = "PrologSlurmctld         = /usr/sbin/cc-slurm-adapter\nEpilogSlurmctld         = (null)\n"
"""As `scontrol show config` prints them."""
NO_HOOKS = """\
EpilogSlurmctld         = /usr/local/sbin/cc-slurm-adapter
Prolog                  = /opt/usr/sbin/cc-slurm-adapter
PrologSlurmctld         = /usr/sbin/cc-slurm-adapter-other
TaskProlog              = (null)
SlurmctldLogFile        = /usr/sbin/cc-slurm-adapter
"""
"""Files of others, and a key that is no hook."""


def answer(site: Site, text: str) -> None:
    """Let slurmctld answer with this configuration."""
    site.make("/answer", text)
    site.stand_in("scontrol", f"cat {site.folder}/answer")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("hooks", [None, NO_HOOKS], ids=["without Slurm", "hooks of others"])
def test_removal_stops_and_disables_every_daemon(site: Site, kind: str, hooks: str | None) -> None:
    if hooks:
        answer(site, hooks)
    ran = site.run(*BEFORE_REMOVAL[kind])
    assert (ran.code, ran.errors) == (0, "")
    assert [call for call in ran.calls if call.startswith("systemctl")] == [
        "systemctl stop cc-slurm-adapter.service",
        "systemctl disable cc-slurm-adapter.service",
        "systemctl stop cc-slurm-adapter@*.service",
        "systemctl disable cc-slurm-adapter@.service",
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_installed_by_hand_goes_on_when_the_package_is_removed(site: Site, kind: str) -> None:
    site.make("/etc/systemd/system/cc-slurm-adapter.service")
    ran = site.run(*BEFORE_REMOVAL[kind])
    assert "cc-slurm-adapter.service was installed by hand: it is left alone" in ran.words
    assert [call for call in ran.calls if call.startswith("systemctl") and "cc-slurm-adapter.service" in call] == []


@pytest.mark.parametrize("place", ["/etc/systemd/system/cc-slurm-adapter@.service", "/usr/local/sbin/cc-slurm-adapter"])
def test_a_purge_leaves_the_state_of_what_was_installed_by_hand(site: Site, place: str) -> None:
    site.make(place)
    site.make("/var/lib/cc-slurm-adapter/state.sqlite")
    ran = site.run("postrm", "purge")
    assert (ran.code, site.path("/var/lib/cc-slurm-adapter/state.sqlite").exists()) == (0, True)
    assert "/var/lib/cc-slurm-adapter stays, for what was installed by hand" in ran.words


def test_a_folder_that_cannot_be_removed_does_not_keep_dpkg_from_a_purge(site: Site) -> None:
    """As the state folder does if a file system is mounted on it."""
    site.stand_in("rm", "exit 1")
    ran = site.run("postrm", "purge")
    assert ran.code == 0
    assert "/var/lib/cc-slurm-adapter could not be removed" in ran.words


def test_a_hook_script_that_calls_it_is_found(site: Site) -> None:
    site.make("/etc/slurm/prolog.sh", "#!/bin/sh\nlogger start\n/usr/sbin/cc-slurm-adapter\n")
    site.make("/etc/slurm/other.sh", "#!/bin/sh\n/usr/local/sbin/cc-slurm-adapter\n")
    hooks = "".join(f"{key} = {site.path(f'/etc/slurm/{name}.sh')}\n" for key, name in HOOK_SCRIPTS.items())
    answer(site, hooks)
    ran = site.run("prerm", "remove")
    assert ran.code == 1
    assert "/etc/slurm/prolog.sh calls it" in ran.errors
    assert "other.sh" not in ran.errors


@pytest.mark.parametrize("hooks", [HOOKS_24, HOOKS_22, HOOKS_22.replace("/usr/sbin", "/sbin")])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_hook_that_slurm_still_calls_is_said_loudly_before_the_removal(site: Site, kind: str, hooks: str) -> None:
    """dpkg then removes nothing; rpm has no way to refuse that leaves no half of it."""
    answer(site, hooks)
    ran = site.run(*BEFORE_REMOVAL[kind])
    (line,) = [line for line in hooks.splitlines() if line.endswith("sbin/cc-slurm-adapter")]
    assert line in ran.errors
    assert "SLURM STILL CALLS /usr/sbin/cc-slurm-adapter" in ran.errors
    assert "scontrol reconfigure" in ran.words
    stopped = [call for call in ran.calls if call.startswith("systemctl")]
    assert (ran.code, bool(stopped)) == ((1, False) if kind == "deb" else (0, True))


def test_the_administrator_may_insist(site: Site) -> None:
    answer(site, HOOKS_22)
    said = site.run("prerm", "remove").errors
    assert "CC_SLURM_ADAPTER_REMOVE=yes" in said
    ran = site.run("prerm", "remove", CC_SLURM_ADAPTER_REMOVE="yes")
    assert ran.code == 0
    assert "SLURM STILL CALLS" in ran.errors
    assert {f"systemctl stop {unit}" for unit in UNITS} <= set(ran.calls)


@pytest.mark.parametrize("silence", ["exit 1", "sleep 60"], ids=["slurmctld is down", "slurmctld hangs"])
def test_where_slurmctld_is_silent_its_file_says_it(site: Site, silence: str) -> None:
    site.stand_in("scontrol", silence)
    site.make("/etc/slurm/slurm.conf", "#PrologSlurmctld=/usr/sbin/cc-slurm-adapter\nNodeName=n1\n")
    assert site.run("prerm", "remove").code == 0
    site.make("/elsewhere.conf", "prologslurmctld = /usr/sbin/cc-slurm-adapter\n")
    assert site.run("prerm", "remove", SLURM_CONF=str(site.path("/elsewhere.conf"))).code == 1


def test_hooks_of_a_second_cluster_are_found_in_its_file(site: Site) -> None:
    answer(site, NO_HOOKS)
    site.make("/elsewhere.conf", "EpilogSlurmctld=/usr/sbin/cc-slurm-adapter\n")
    site.make("/etc/cc-slurm-adapter/alpha.json", f'{{"slurmConf": "{site.path("/elsewhere.conf")}"}}')
    assert site.run("prerm", "remove").code == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_removal_works_where_no_systemd_runs_or_fails(site: Site, kind: str) -> None:
    site.stand_in("systemctl", "exit 1")
    assert site.run(*BEFORE_REMOVAL[kind]).code == 0
    assert site.run(*AFTER_REMOVAL[kind]).code == 0
    site.path("/run/systemd/system").rmdir()
    ran = site.run(*BEFORE_REMOVAL[kind])
    assert (ran.code, [call for call in ran.calls if " stop " in call]) == (0, [])
    site.without("systemctl")
    assert site.run(*BEFORE_REMOVAL[kind]).code == 0
    assert site.run(*AFTER_REMOVAL[kind]).code == 0


def furnish(site: Site) -> list[Path]:
    """Make what a daemon and an administrator leave; return all of it."""
    names = ("/etc/cc-slurm-adapter/token", "/var/lib/cc-slurm-adapter/state.sqlite", "/run/cc-slurm-adapter/events/x")
    for name in names:
        site.make(name)
    return [site.path(name) for name in names]


@pytest.mark.parametrize("kind", FORMATS)
def test_removal_keeps_the_configuration_and_the_state_and_says_so(site: Site, kind: str) -> None:
    kept = furnish(site)
    for step in (BEFORE_REMOVAL, AFTER_REMOVAL):
        ran = site.run(*step[kind])
        assert ran.code == 0
    assert "/etc/cc-slurm-adapter" in ran.output
    assert "/var/lib/cc-slurm-adapter" in ran.output
    assert ran.calls == ["systemctl daemon-reload"]
    assert [path for path in kept if not path.exists()] == []


def test_purge_takes_what_the_daemon_has_made_and_not_what_the_administrator_has(site: Site) -> None:
    token, state, event = furnish(site)
    ran = site.run("postrm", "purge")
    assert (ran.code, ran.calls) == (0, [])
    assert (token.exists(), state.parent.exists(), event.parent.parent.exists()) == (True, False, False)
    assert "/etc/cc-slurm-adapter stays" in ran.output
    assert "userdel cc-slurm-adapter" in ran.output
    token.unlink()
    assert site.run("postrm", "purge").code == 0
    assert not token.parent.exists()
    assert site.run("postrm", "purge").code == 0


@pytest.mark.parametrize(
    "call",
    [*FIRST_INSTALL.values(), *UPGRADE.values(), *BEFORE_REMOVAL.values(), *AFTER_REMOVAL.values()],
    ids=" ".join,
)
def test_what_is_said_fits_on_a_terminal(site: Site, call: tuple[str, ...]) -> None:
    """Whatever is wrong at once: nothing works, files of another installation are there, hooks are set."""
    for name in ("systemd-sysusers", "systemd-tmpfiles", "systemctl", "useradd"):
        site.stand_in(name, "exit 1")
    for place in ("/usr/local/sbin/cc-slurm-adapter", "/etc/systemd/system/cc-slurm-adapter@.service"):
        site.make(place)
    furnish(site)
    answer(site, HOOKS_22)
    ran = site.run(*call)
    lines = (ran.output + ran.errors).splitlines()
    assert lines
    assert [line for line in lines if len(line) > 80] == []


def test_a_real_rpm_calls_them_as_these_tests_do(made: tuple[Path, Path], rpm: Rpm, tmp_path: Path) -> None:
    """On a host that has a shell and nothing else: installed, upgraded and erased."""
    need_root()
    root, newer = tmp_path / "root", tmp_path / "newer"
    give_shell(root)
    newer.mkdir()
    write_stand_in(newer, "1.2.4")
    first = rpm.change(root, "--install", made[1])
    assert "the next three commands" in " ".join(first.lower().split())
    again = rpm.change(root, "--upgrade", make_packages(newer)[1])
    assert "the next three commands" not in again.lower()
    assert "must be made at each boot" in again
    assert "stays" not in again
    (root / "etc/cc-slurm-adapter/token").touch()
    last = rpm.change(root, "--erase", "cc-slurm-adapter")
    assert "/etc/cc-slurm-adapter stays" in last
    assert not (root / PROGRAM[1:]).exists()
    assert (root / "etc/cc-slurm-adapter/token").exists()


def give_shell(root: Path) -> None:
    """Copies the shell, grep and mkdir with their libraries, and what they write to."""
    for name in ("sh", "grep", "mkdir"):
        program = shutil.which(name)
        assert program
        said = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=20, check=True).stdout
        for path in (f"/bin/{name}", *re.findall(r"(/\S+) \(0x", said)):
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program if path.startswith("/bin/") else path, target)
    (root / "dev").mkdir()
    (root / "dev/null").touch()
