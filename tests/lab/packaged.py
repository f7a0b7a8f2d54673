"""A machine on which the .deb lives: installed, upgraded while jobs run, gone back from, removed and purged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cc_slurm_adapter import __version__
from examples.practice.cc_backend import DEFAULT_TOKEN
from tests.project.test_documents import TEXTS, blocks, commands_of_section, section

from .controller import BY_HAND, CONFIG, PACKAGED, UNIT, Controller
from .namespaces import wait_for
from .package_file import write_package
from .replaced_file import GO_ON, HookCalls, calling
from .slurm_jobs import Submission, wait_until_ended

if TYPE_CHECKING:
    from pathlib import Path

    from examples.practice.cc_backend import JobRow

OLD = "0.0.9"
"""A version before: the same file with another number."""
INSTANCE = "cc-slurm-adapter@alpha.service"
TOKEN = "/etc/cc-slurm-adapter/token"
STATE, EVENTS = "/var/lib/cc-slurm-adapter/state.sqlite", "/run/cc-slurm-adapter/events"
WANTED_BY = "/etc/systemd/system/multi-user.target.wants"
OF_PACKAGE = (
    *(PACKAGED, f"/usr/lib/systemd/system/{UNIT}", "/usr/lib/systemd/system/cc-slurm-adapter@.service"),
    *(f"/usr/lib/{folder}/cc-slurm-adapter.conf" for folder in ("sysusers.d", "tmpfiles.d")),
    *(f"/usr/share/man/man{section}/cc-slurm-adapter.{section}.gz" for section in (5, 8)),
    *("/usr/share/bash-completion/completions/cc-slurm-adapter", "/usr/share/doc/cc-slurm-adapter/docs/packages.md"),
)
OF_ADMINISTRATOR = (CONFIG, TOKEN)
OF_DAEMON = (STATE, EVENTS)
ENABLED = (f"{WANTED_BY}/{UNIT}", f"{WANTED_BY}/{INSTANCE}")
LOOKED_FOR = (*OF_PACKAGE, *OF_ADMINISTRATOR, *OF_DAEMON, *ENABLED)
LONGER = Submission(script="sleep 6")


@dataclass(frozen=True)
class Step:
    """How the machine is after a call of apt-get."""

    code: int
    said: str
    """Everything that apt-get and the package's scripts have printed, with single blanks."""
    there: set[str]
    """Of the paths in LOOKED_FOR."""
    state: str
    """The unit's, as in `systemctl is-active`."""
    version: str
    """The installed file's; '' if there is none."""
    pid: int
    user: str
    """The daemon's user as /etc/passwd has it, or ''."""


@dataclass(frozen=True)
class Life:
    """All steps in their order, and what came of the jobs on the way."""

    image: str
    """The user's line in /etc/passwd after an installation in the chroot, before anything runs."""
    first: Step
    printed: str
    """What -install prints after the first installation."""
    events: str
    """Owner, group and mode of the events folder then."""
    started: Step
    checked: str
    """What -check prints of the unit and the hooks while the daemon runs."""
    upgraded: Step
    hooks: HookCalls
    """Those that were called during the upgrade."""
    back: Step
    refused: Step
    removed: Step
    slurmctld: str
    """Its state after a restart without the package."""
    again: Step
    goes_on: Step
    insisted: Step
    """Removed although the hooks are set."""
    purged: Step
    purged_empty: Step
    """Purged after another installation that was never configured."""
    beside: Step
    """Installed beside an installation by hand."""
    moved: Step
    """After the commands of docs/packages.md that replace that one."""
    moved_unit: str
    """The unit's file and its command then."""
    uninstalled: Step
    """Without a package, after another installation by hand."""
    rows: dict[str, JobRow]
    """A job for each of: started, during the upgrade, back, goes_on, moved."""
    ended: dict[str, tuple[int | None, int | None]]
    """Start and end of these jobs as Slurm has them."""


class PackagedMachine:
    """What is done to a machine with Slurm and without this program. `folder` is for the packages."""

    def __init__(self, controller: Controller, folder: Path) -> None:
        self.controller, self.machine = controller, controller.machine
        self.debs = {version: write_package(folder / version, version) for version in (OLD, __version__)}
        self.jobs: dict[str, int] = {}

    def prepare(self) -> str:
        """Installs and purges in the chroot, and begins Slurm. Documents are installed, unlike in the lab's chroot."""
        for deb in self.debs.values():
            self.machine.disk(f"/root/{deb.name}").write_bytes(deb.read_bytes())
        self.machine.on_disk("userdel cc-slurm-adapter")
        self.machine.on_disk(f"dpkg --install /root/{self.debs[OLD].name}; test -x {PACKAGED}")
        self.machine.on_disk(f"dpkg --purge cc-slurm-adapter; test ! -e {PACKAGED}")
        users = self.machine.disk("/etc/passwd").read_text(encoding="ascii")
        self.controller.begin_slurm()
        return next(line for line in users.splitlines() if line.startswith("cc-slurm-adapter:"))

    def install(self, version: str) -> Step:
        """By the command of docs/packages.md, but without what is only recommended."""
        return self.apt("install", "--no-install-recommends", "--allow-downgrades", f"/root/{self.debs[version].name}")

    def apt(self, *arguments: str, insist: bool = False) -> Step:
        """Calls apt-get; it may fail."""
        variables = ["env", "CC_SLURM_ADAPTER_REMOVE=yes"] if insist else []
        command = [*variables, "apt-get", "-q", "--yes", *arguments]
        done = self.machine.run(*command, seconds=180)
        return self.look(done.returncode, f"{done.stdout} {done.stderr}")

    def look(self, code: int = 0, said: str = "") -> Step:
        """How the machine is now."""
        version = self.machine.run(PACKAGED, "-version").stdout
        return Step(
            code,
            " ".join(said.replace("cc-slurm-adapter: ", "").split()),
            {path for path in LOOKED_FOR if self.machine.run("test", "-e", path).returncode == 0},
            self.machine.state_of(UNIT),
            version.partition("\n")[0].removeprefix("cc-slurm-adapter ").partition(" ")[0],
            self.controller.pid,
            self.machine.run("getent", "passwd", "cc-slurm-adapter").stdout.strip(),
        )

    def configure_and_start(self) -> Step:
        """What the administrator does after the first installation."""
        self.machine.path(CONFIG).touch()
        self.machine.output("sh", "-ec", f"chgrp slurm {CONFIG}; chmod 0640 {CONFIG}")
        self.controller.configure()
        self.machine.path(TOKEN).write_text(DEFAULT_TOKEN, encoding="ascii")
        self.machine.output("sh", "-ec", f"chown cc-slurm-adapter {TOKEN}; chmod 0600 {TOKEN}")
        grant = "sacctmgr -i add user cc-slurm-adapter account=root adminlevel=operator"
        self.machine.output(*grant.split())
        self.machine.output("systemctl", "enable", "--now", "cc-slurm-adapter", seconds=60)
        self.machine.output("systemctl", "enable", INSTANCE)
        self.controller.call_hooks()
        self.controller.wait_until_ready()
        return self.look()

    def run_job(self, name: str, job: Submission | None = None) -> int:
        """Submits one, whose row is kept by this name."""
        self.jobs[name] = self.controller.run_job(job) if job else self.controller.run_job()
        return self.jobs[name]

    def report_job(self, name: str) -> None:
        """Runs one until cc-backend has its end."""
        self.controller.wait_for_stops([self.run_job(name)])

    def upgrade_while_hooks_are_called(self) -> tuple[Step, HookCalls]:
        """A job runs meanwhile, too."""
        job = self.run_job("during the upgrade", LONGER)
        with calling(self.controller, job) as process:
            step = self.install(__version__)
            self.machine.path(GO_ON).unlink()
            lines, words = process.communicate(timeout=60)
        self.controller.wait_until_ready()
        self.controller.wait_for_stops([job])
        return step, HookCalls(lines.split("\n")[:-1], words)

    def forget_hooks(self) -> None:
        """Removes them from slurm.conf, as docs/packages.md says."""
        self.machine.output("sed", "-i", "/logSlurmctld=/d", "/etc/slurm/slurm.conf")
        self.machine.output("scontrol", "reconfigure")
        question = ["sh", "-c", "scontrol show config | grep -c sbin/cc-slurm-adapter"]
        wait_for("slurmctld without hooks", lambda: self.machine.run(*question).stdout.strip() == "0", seconds=60)

    def restart_slurmctld(self) -> str:
        """Its state afterwards."""
        self.machine.run("systemctl", "restart", "slurmctld", seconds=60)
        self.controller.wait_for_slurmctld()
        return self.machine.state_of("slurmctld")

    def install_beside_one_by_hand(self) -> Step:
        """As on a site that has followed docs/install.md."""
        self.machine.output("sh", "-ec", "userdel cc-slurm-adapter; sacctmgr -i remove user cc-slurm-adapter")
        self.controller.install_by_hand()
        self.controller.wait_until_ready()
        return self.install(__version__)

    def move(self) -> tuple[Step, str]:
        """By the steps of docs/packages.md."""
        self.controller.program = PACKAGED
        self.machine.output("sed", "-i", f"s,={BY_HAND}$,={PACKAGED},", "/etc/slurm/slurm.conf")
        self.machine.output("scontrol", "reconfigure")
        question = ["sh", "-c", f"scontrol show config | grep -c {BY_HAND}"]
        wait_for("slurmctld's new hooks", lambda: self.machine.run(*question).stdout.strip() == "0", seconds=60)
        (commands,) = blocks(section(TEXTS["docs/packages.md"], "From an installation by hand"), "sh")
        self.controller.run_block(commands)
        self.controller.wait_until_ready()
        moved = self.look()
        self.report_job("moved")
        return moved, " ".join(self.machine.property_of(UNIT, name) for name in ("FragmentPath", "ExecStart"))

    def uninstall_by_hand(self) -> Step:
        """What an installation without a package has made, by the steps of docs/install.md."""
        self.forget_hooks()
        self.apt("purge", "cc-slurm-adapter")
        self.machine.output("sh", "-ec", "rm -r /etc/cc-slurm-adapter; userdel cc-slurm-adapter")
        self.machine.output("sacctmgr", "-i", "remove", "user", "cc-slurm-adapter")
        self.controller.install_by_hand()
        self.controller.wait_until_ready()
        self.forget_hooks()
        (commands,) = commands_of_section("Uninstalling")
        self.controller.run_block(commands)
        return self.look()

    def live(self) -> Life:
        """All steps."""
        image = self.prepare()
        first = self.install(OLD)
        printed = self.machine.output(PACKAGED, "-install", seconds=60)
        events = self.machine.run("stat", "-c", "%U:%G %a", EVENTS).stdout.strip()
        started = self.configure_and_start()
        self.report_job("started")
        checked = self.machine.run(PACKAGED, "-check", seconds=60).stdout
        upgraded, hooks = self.upgrade_while_hooks_are_called()
        back = self.install(OLD)
        self.report_job("back")
        self.install(__version__)
        refused = self.apt("remove", "cc-slurm-adapter")
        self.forget_hooks()
        removed = self.apt("remove", "cc-slurm-adapter")
        slurmctld = self.restart_slurmctld()
        again = self.install(__version__)
        self.machine.output("systemctl", "enable", "--now", "cc-slurm-adapter", seconds=60)
        self.controller.wait_until_ready()
        goes_on = self.look()
        self.report_job("goes_on")
        self.controller.call_hooks()
        insisted = self.apt("remove", "cc-slurm-adapter", insist=True)
        self.machine.output("sed", "-i", "/logSlurmctld=/d", "/etc/slurm/slurm.conf")
        self.restart_slurmctld()
        purged = self.apt("purge", "cc-slurm-adapter")
        self.machine.output("rm", "-r", "/etc/cc-slurm-adapter")
        self.install(__version__)
        purged_empty = self.apt("purge", "cc-slurm-adapter")
        beside = self.install_beside_one_by_hand()
        moved, moved_unit = self.move()
        uninstalled = self.uninstall_by_hand()
        ended = wait_until_ended(self.machine, list(self.jobs.values()))
        return Life(
            *(image, first, printed, events, started, checked, upgraded, hooks, back, refused, removed, slurmctld),
            *(again, goes_on, insisted, purged, purged_empty, beside, moved, moved_unit, uninstalled),
            rows={name: self.controller.only_row(job) for name, job in self.jobs.items()},
            ended={name: (ended[job].start_time, ended[job].end_time) for name, job in self.jobs.items()},
        )
