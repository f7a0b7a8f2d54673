"""A machine with Slurm's own units and this program, installed by the commands that docs/install.md shows."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.practice.cc_backend import DEFAULT_TOKEN, CcBackend, CcBackendServer
from tests.project.test_documents import commands_of_section, commands_of_steps

from .machine import Machine
from .namespaces import PATIENCE, ClosedAtTheEnd, LabError, wait_for
from .package_file import write_package
from .slurm_conf import CGROUP_CONF, CLUSTER, COMMON_CONF, SLURMDBD_CONF, WITH_SLURMDBD
from .slurm_jobs import Submission, submit
from .slurm_lab import ACCOUNTING, DATABASE, free_ports

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Iterator

    from examples.practice.cc_backend import JobRow

    from .debian import Suite

ROOT = Path(__file__).parents[2]
NODE = "node01"
UNIT = "cc-slurm-adapter.service"
BY_HAND, PACKAGED = "/usr/local/sbin/cc-slurm-adapter", "/usr/sbin/cc-slurm-adapter"
"""Where the program is after an installation without a package, and after one with it."""
CONFIG = "/etc/cc-slurm-adapter/config.json"
RUN_FOLDER = "/run/cc-slurm-adapter"
SOURCES = "/root/cc-slurm-adapter"
"""A clone on the machine, with what the commands of docs/install.md take from it, and the packages."""
DOCUMENTS = "/usr/share/doc/cc-slurm-adapter/"
"""Where the package has what a clone has in its own folder."""
POLL_SECONDS = 5
ONE_SECOND = Submission(script="sleep 1")

SLURM_CONF = (
    COMMON_CONF.replace("/run/slurm/", "/var/spool/slurmctld/")
    + """\
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
{accounting}
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 NodeHostname=lab Port={node_port} \
Sockets=2 CoresPerSocket=4 RealMemory=4000 Gres=gpu:4
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""
)
GRES_CONF = f"NodeName={NODE} Name=gpu File=/dev/gpu[0-3]\n"
GPUS = """\
[Service]
ExecStartPre=-/bin/sh -c 'for gpu in 0 1 2 3; do mknod -m 666 /dev/gpu$$gpu c 1 3; done'
"""
"""What looks like GPUs to slurmd, at each boot."""
MARIADB_UNIT = """\
[Service]
Type=notify
RuntimeDirectory=mysqld
RuntimeDirectoryMode=0755
ExecStartPre=+/bin/ln -sfn mysqld /run/mariadbd
ExecStartPre=/bin/sh -c '[ -d /var/lib/mysql/mysql ] || mariadb-install-db --datadir=/var/lib/mysql --skip-test-db'
ExecStart=/usr/sbin/mariadbd --no-defaults --datadir=/var/lib/mysql --skip-networking \
    --socket=/run/mysqld/mysqld.sock --innodb-lock-wait-timeout=900 --init-file=/etc/slurm/database.sql
User=mysql
[Install]
WantedBy=multi-user.target
"""
LATE_SECONDS = float(os.environ.get("CC_SLURM_ADAPTER_SLURMCTLD_LATE", "5"))
"""Seconds from multi-user.target to slurmctld's start on a site where it begins when all else is up."""
LATE = f"""\
[Unit]
After=multi-user.target
[Service]
ExecStartPre=/bin/sleep {LATE_SECONDS}
TimeoutStartSec=infinity
"""
TEST_FILE = f"/etc/systemd/system/{UNIT}.d/test.conf"
LATE_FILE = "/etc/systemd/system/slurmctld.service.d/late.conf"


class Controller(ClosedAtTheEnd):
    """Use it in a `with` block. It is a running machine with the daemon's unit enabled and started.

    `program` says how this is installed: as BY_HAND or as PACKAGED.
    """

    def __init__(self, suite: Suite, root: Path, log: Path, program: str = PACKAGED) -> None:
        self.suite = suite
        self.program = program
        self.machine = Machine(root, log)
        self.backend = CcBackend({CLUSTER: [NODE]}, describes_hardware=False)
        self.server = CcBackendServer(self.backend)
        self.server.start()

    def close(self) -> None:
        """Switches the machine off."""
        self.machine.close()
        self.server.close()

    # --- made as docs/install.md says

    def set_up(self) -> None:
        """From a machine with Slurm's packages to one that reports jobs; about 20 s."""
        self.begin_slurm()
        if self.program == BY_HAND:
            self.install_by_hand()
        else:
            self.install_package()

    def begin_slurm(self) -> None:
        """From a machine with Slurm's packages to a cluster that knows nothing of this program."""
        self._lay_out()
        self.machine.boot()
        self.machine.wait_for_target()
        self._begin_accounting()
        self.machine.output("systemctl", "enable", "--now", "slurmctld", "slurmd", seconds=60)
        self.wait_for_slurmctld()

    def _lay_out(self) -> None:
        """What a site has in its configuration before it knows of this program."""
        first = free_ports()
        values = {"cluster": CLUSTER, "port": first, "dbd_port": first + 1, "node_port": first + 2, "node": NODE}
        accounting = WITH_SLURMDBD.format(**values).replace("AccountingStorageTRES=gres/gpu,gres/gpu:h100\n", "")
        files = {
            "slurm/slurm.conf": SLURM_CONF.format(**values, accounting=accounting),
            "slurm/slurmdbd.conf": SLURMDBD_CONF.format(**values).replace("/run/slurm/", "/var/spool/slurmctld/"),
            "slurm/cgroup.conf": CGROUP_CONF.get(self.suite.slurm, "CgroupPlugin=disabled\n"),
            "slurm/gres.conf": GRES_CONF,
            "slurm/database.sql": DATABASE.replace("create database", "create database if not exists")
            .replace("create user", "create user if not exists")
            .replace("; ", ";\n"),
            "default/slurmd": f"SLURMD_OPTIONS=-N {NODE}\n",
            "systemd/system/slurmd.service.d/gpus.conf": GPUS,
            "systemd/system/mariadb.service": MARIADB_UNIT,
        }
        self.machine.on_disk("mkdir /etc/systemd/system/slurmd.service.d")
        for name, text in files.items():
            self.machine.disk(f"/etc/{name}").write_text(text, encoding="ascii")
        self.machine.on_disk("chown slurm: /etc/slurm/slurmdbd.conf; chmod 600 /etc/slurm/slurmdbd.conf")
        self.machine.on_disk("install -d -o slurm /var/spool/slurmctld /var/log/slurm; chown mysql: /var/lib/mysql")
        self.machine.on_disk("install -d /var/spool/slurmd")
        self.machine.on_disk("userdel cc-slurm-adapter; rm -rf /etc/cc-slurm-adapter /var/lib/cc-slurm-adapter")
        self.machine.on_disk("cd /etc/systemd/system/multi-user.target.wants; rm slurmctld.service slurmd.service")
        self.machine.on_disk("cd /etc/systemd/system/multi-user.target.wants; ln -s ../mariadb.service .")
        self.machine.on_disk("sed -i /path-exclude/d /etc/dpkg/dpkg.cfg.d/lab")  # documents are installed
        for source in ("dist", "examples"):
            self._copy(ROOT / source, self.machine.disk(f"{SOURCES}/{source}"))
        with tempfile.TemporaryDirectory() as folder:
            package = write_package(Path(folder) / "package")
            self.machine.disk(f"{SOURCES}/{package.name}").write_bytes(package.read_bytes())

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        for file in source.iterdir():
            if file.is_file():
                (target / file.name).write_bytes(file.read_bytes())

    def _begin_accounting(self) -> None:
        self.wait_for_slurmdbd()
        for line in ACCOUNTING.format(cluster=CLUSTER).strip().splitlines():
            if "cc-slurm-adapter" not in line:
                self.machine.output(*line.split())

    def install_by_hand(self) -> None:
        """By the commands of docs/install.md without a package, but for the build."""
        self.program = BY_HAND
        (install,) = commands_of_section("Without a package")
        _, configure, *rest = commands_of_steps()
        configure = configure.replace(DOCUMENTS, "")
        self._install(install.replace("python3 build.py build ", ": "), configure, *rest)

    def install_package(self) -> None:
        """By the commands of docs/install.md."""
        self.program = PACKAGED
        self._install(*commands_of_steps())

    def _install(self, install: str, configure: str, give_rights: str, start: str) -> None:
        """With the configuration of this cc-backend."""
        self.machine.path(f"{SOURCES}/token.txt").write_text(DEFAULT_TOKEN, encoding="ascii")
        self.run_block(install)
        self.run_block(configure)
        self.configure()
        self.run_block(give_rights)
        self.run_block(start)
        self.call_hooks()

    def run_block(self, script: str) -> None:
        """Runs commands of a document as they stand there, in the clone on the machine."""
        self.machine.output("sh", "-exc", f"cd {SOURCES}\n{script}", seconds=120)

    def configure(self, **settings: Any) -> bool:
        """Writes into config.json, whose owner and mode stay as they were made; whether that changed it."""
        minimal = json.loads((ROOT / "examples" / "config.minimal.json").read_text(encoding="utf-8"))
        times = {"slurmPollInterval": POLL_SECONDS, "slurmQueryMaxSpan": 3600}
        config = {**minimal, "ccRestUrl": self.server.url, **times, **settings}
        file, text = self.machine.path(CONFIG), json.dumps(config)
        if file.read_text(encoding="ascii") == text:
            return False
        file.write_text(text, encoding="ascii")
        return True

    def call_hooks(self) -> None:
        """The lines of the last step of docs/install.md."""
        program = self.program
        conf = self.machine.path("/etc/slurm/slurm.conf")
        lines = (ROOT / "examples" / "slurm.conf.hooks").read_text(encoding="utf-8").replace(BY_HAND, program)
        conf.write_text(conf.read_text(encoding="ascii") + lines, encoding="ascii")
        self.machine.output("scontrol", "reconfigure")
        question = ["sh", "-c", f"scontrol show config | grep -cE 'logSlurmctld(\\[0\\])? *= {program}$'"]
        wait_for("slurmctld's hooks", lambda: self.machine.run(*question).stdout.strip() == "2", seconds=60)
        if self.suite.slurm == "22.05":
            self.machine.output("systemctl", "restart", "slurmctld", seconds=60)
            self.wait_for_slurmctld()

    # --- what is done with it

    def wait_for_slurmctld(self) -> None:
        """Returns when jobs can run and are accounted."""
        self.wait_for_slurmdbd()
        idle = ["sh", "-c", "scontrol ping | grep -q UP && sinfo -h -N -o %T | grep -qE '^(idle|mixed|allocated)$'"]
        limit = 60 + LATE_SECONDS
        wait_for("slurmctld and its node", lambda: self.machine.run(*idle).returncode == 0, seconds=limit, every=0.2)

    def wait_for_slurmdbd(self) -> None:
        """Returns when it answers."""
        question = ["sacctmgr", "-n", "show", "cluster"]
        wait_for("slurmdbd", lambda: self.machine.run(*question).returncode == 0, seconds=60, every=0.2)

    def run_job(self, job: Submission = ONE_SECOND) -> int:
        """Submits it."""
        return submit(self.machine, job)

    def wait_for_stops(self, job_ids: Iterable[int], seconds: float = 60) -> None:
        """Waits until cc-backend has every job with its end; fails with the journal if it does not come to that."""
        wanted = set(job_ids)
        self.backend.wait_for(lambda: wanted <= self.stopped(), PATIENCE * seconds)
        missing = wanted - self.stopped()
        assert not missing, f"no stop of jobs {sorted(missing)}:\n{self.journal()}"

    def stopped(self) -> set[int]:
        return {row.job_id for row in self.backend.rows if row.stop_time is not None}

    def only_row(self, job_id: int) -> JobRow:
        """The row of a job that must have exactly one."""
        (row,) = self.backend.rows_of(job_id)
        return row

    def journal(self, *options: str) -> str:
        """What the unit has said since the boot, and systemd about it."""
        return self.machine.journal(f"--unit={UNIT}", *options)

    def lines(self) -> list[tuple[int, str]]:
        """The daemon's own lines since the boot, each with its priority in the journal, where 3 is an error."""
        fields = ["--output=json", "--output-fields=PRIORITY,MESSAGE,_PID"]
        entries = map(json.loads, self.machine.journal(f"_SYSTEMD_UNIT={UNIT}", *fields).splitlines())
        return [(int(entry["PRIORITY"]), entry["MESSAGE"]) for entry in entries]

    def events_of(self, job_id: int) -> set[str]:
        """The kinds of hooks whose event of a job lies in the events folder."""
        names = [path.name.split(".") for path in self.machine.path(f"{RUN_FOLDER}/events").iterdir()]
        return {name[1] for name in names if name[0] == str(job_id)}

    @property
    def pid(self) -> int:
        """The daemon's process id on the machine; 0 while there is none."""
        return int(self.machine.property_of(UNIT, "MainPID"))

    def signal(self, number: signal.Signals) -> None:
        """Sends it to the daemon."""
        self.machine.output("kill", f"-{int(number)}", str(self.pid))

    def wait_until_ready(self, other_than: int = 0, seconds: float = 60) -> int:
        """Waits until the unit is active, with another process than that one; gives its process id."""

        def ready() -> int:
            pid = self.pid
            return pid if pid != other_than and self.machine.state_of(UNIT) == "active" else 0

        try:
            return wait_for("the daemon", ready, seconds=seconds)
        except LabError as error:
            raise LabError(f"{error}\n{self.journal()}") from None

    def wait_for_end(self) -> None:
        """Waits until it is decided what comes after the unit's end: nothing, or another start."""
        ends = ("failed", "auto-restart")
        wait_for("the unit's end", lambda: self.machine.property_of(UNIT, "SubState") in ends, seconds=30)

    def wait_for_line(self, text: str, seconds: float = 30) -> None:
        """Waits for a line of the unit in the journal."""
        try:
            wait_for(f"a line with {text!r}", lambda: text in self.journal(), seconds=seconds, every=0.2)
        except LabError as error:
            raise LabError(f"{error}\n{self.journal()}") from None

    def reboot(self) -> None:
        """As an administrator does it; returns as soon as the new systemd takes commands."""
        self.machine.shut_down()
        self.machine.boot()

    def drop_in(self, path: str, text: str) -> None:
        """Adds to a unit, for the next start of it."""
        file = self.machine.path(path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="ascii")
        self.machine.output("systemctl", "daemon-reload")

    def begin_slurmctld_late(self) -> None:
        """From the next boot on."""
        self.drop_in(LATE_FILE, LATE)

    def change_unit(self, text: str) -> None:
        """Adds to the daemon's unit until the end of the test, and starts it again."""
        self.drop_in(TEST_FILE, text)
        if self.machine.run("systemctl", "restart", UNIT).returncode != 0:
            raise LabError(f"{UNIT} does not start with {text}\n{self.journal('--lines=30')}")

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """For the length of a block a boot does not start the daemon."""
        self.machine.output("systemctl", "disable", UNIT)
        try:
            yield
        finally:
            self.machine.output("systemctl", "enable", UNIT)

    @contextlib.contextmanager
    def frozen_slurmctld(self) -> Iterator[None]:
        """For the length of a block slurmctld does nothing: the kernel accepts connections, nobody answers."""
        pid = self.machine.property_of("slurmctld.service", "MainPID")
        self.machine.output("kill", "-STOP", pid)
        try:
            yield
        finally:
            self.machine.output("kill", "-CONT", pid)

    def as_installed(self) -> None:
        """What tests have added to units and to the configuration is taken away, and what is enabled runs."""
        changed = self.configure()
        added = [path for path in map(self.machine.path, (LATE_FILE, TEST_FILE)) if path.exists()]
        for path in added:
            path.unlink()
        if added or changed:
            self.machine.output("systemctl", "daemon-reload")
            self.machine.output("systemctl", "restart", UNIT)
        self.machine.output("systemctl", "start", "slurmctld", "slurmd", UNIT, seconds=120)
        self.wait_for_slurmctld()
        self.wait_until_ready()
