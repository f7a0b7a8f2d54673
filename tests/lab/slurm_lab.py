"""A real Slurm in a chroot: munge, MariaDB, slurmdbd, slurmctld and a slurmd for each node.

Everything that a run of the lab writes lies in memory, mounted over the chroot inside the lab's own
namespaces, so each run begins with an empty cluster and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .debian import CHANGING_FOLDERS, DEVICES, Suite, describe, tail
from .namespaces import ClosedAtTheEnd, LabError, Namespaces, child_of, wait_for
from .slurm_conf import CLUSTER, NODES, SHIPPED_FILE, files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDERS = r"""
cd "$1"
shift
for folder in "$@"; do mount -t tmpfs -o mode=755 lab $folder; done
chmod 1777 tmp
mkdir -p run/munge run/slurm run/mysqld run/cc-slurm-adapter var/log/munge var/log/slurm \
    var/spool/slurmctld var/spool/slurmd
ln -s mysqld run/mariadbd
for gpu in 0 1 2 3; do mknod -m 666 dev/gpu$gpu c 1 3; done
head -c 1024 /dev/urandom > etc/munge/munge.key
chmod 400 etc/munge/munge.key
"""
OWNERS = """
chown -R munge:munge /etc/munge /run/munge /var/lib/munge /var/log/munge
chown mysql:mysql /run/mysqld /var/lib/mysql
chown slurm:slurm /var/spool/slurmctld /var/log/slurm /run/slurm
find /etc/slurm -name slurmdbd.conf -exec chown slurm:slurm {} + -exec chmod 600 {} +
chown cc-slurm-adapter:slurm /var/lib/cc-slurm-adapter /run/cc-slurm-adapter
chmod 750 /var/lib/cc-slurm-adapter /run/cc-slurm-adapter
"""
"""The last two lines are what systemd does for StateDirectory and RuntimeDirectory."""

DATABASE = (
    "create database slurm_acct_db; create user slurm@localhost identified by 'slurm'; "
    "grant all on slurm_acct_db.* to slurm@localhost;"
)
ACCOUNTING = """
sacctmgr -i add cluster {cluster}
sacctmgr -i add account proj chem Cluster={cluster}
sacctmgr -i add user alice Account=proj
sacctmgr -i add user bob Account=chem
sacctmgr -i add user carol Account=chem
sacctmgr -i add user cc-slurm-adapter Account=root AdminLevel=Operator
"""


PORTS = 20
"""As many as the largest cluster needs."""
UNTRIED_PORTS = iter(random.sample(range(21000, 31000 - PORTS, PORTS + 1), 470))
CLAIMS: list[socket.socket] = []
"""Each holds the port before those of a cluster of this process: other processes then look for others."""


class SlurmLab(ClosedAtTheEnd):
    """A running cluster. `root` is a chroot made by `make_chroot`; it is only read."""

    def __init__(self, suite: Suite, root: Path, *, slurmdbd: bool = True) -> None:
        self.suite = suite
        self.root = root
        self.in_use = threading.Lock()
        """Held by whoever runs jobs on the cluster: one at a time."""
        self._slurmdbd = slurmdbd
        self._place = Namespaces()
        self._services: dict[str, subprocess.Popen[bytes]] = {}

    def close(self) -> None:
        """Ends the cluster and everything else that runs inside."""
        self._place.close()

    def path(self, inside: str | Path) -> Path:
        """Where a file of the cluster's own file system can be reached from here."""
        return self._place.seen_from_outside(self.root / str(inside).lstrip("/"))

    def command(self, argv: Sequence[str], user: str = "root") -> list[str]:
        """The command line that runs `argv` on the cluster's only machine; `user` may be `user:group`."""
        return ["chroot", f"--userspec={user}", str(self.root), *argv]

    def command_from_outside(self, argv: Sequence[str], user: str = "root") -> list[str]:
        """The same for a process of this machine."""
        return self._place.enter(self.command(argv, user))

    def run(
        self, *argv: str, user: str = "root", seconds: float = 30, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as `user`; its exit code is not looked at."""
        return self._place.run(self.command(argv, user), seconds=seconds, text=text)

    def output(self, *argv: str, user: str = "root", seconds: float = 30, text: str = "") -> str:
        """What a command prints; a LabError if it fails."""
        done = self.run(*argv, user=user, seconds=seconds, text=text)
        if done.returncode != 0:
            raise LabError(f"{describe(argv, done.returncode, seconds)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def popen(self, argv: Sequence[str], *, user: str, log: Path) -> subprocess.Popen[bytes]:
        """Starts a program as `user`; its output is appended to `log`, a file of this machine."""
        with log.open("ab") as output:
            return self._place.popen(self.command(argv, user), log=output)

    def start(self, shipped: Path) -> None:
        """Brings the cluster up with a copy of `shipped` as its hooks; about 10 s.

        An error names the part that did not start.
        """
        for script in (DEVICES, FOLDERS):
            done = self._place.run(["sh", "-ec", script, "sh", str(self.root), *CHANGING_FOLDERS], seconds=10)
            if done.returncode != 0:
                raise LabError(f"the file system of {self.root} cannot be laid out:\n{done.stderr}")
        self._write_configuration()
        shutil.copy(shipped, self.path(SHIPPED_FILE))
        self.output("sh", "-ec", OWNERS)
        self._start_munge()
        if self._slurmdbd:
            self._start_database()
            self.start_slurmdbd()
            for line in ACCOUNTING.format(cluster=CLUSTER).strip().splitlines():
                self.output(*line.split())
        self._start_controller()
        self._start_nodes()

    def start_slurmdbd(self) -> None:
        """Starts it, also again, and waits until it answers."""
        self._service("slurmdbd", "slurm", ["slurmdbd", "-D"])
        self._wait("slurmdbd", "slurmdbd", ["sacctmgr", "-n", "show", "cluster"])

    def stop_slurmdbd(self) -> None:
        """As `systemctl stop` does it."""
        self.stop_service("slurmdbd")

    def stop_service(self, name: str) -> None:
        """Returns when it is gone."""
        service = self._services[name]
        os.kill(child_of(service.pid), signal.SIGTERM)
        service.wait(timeout=60)

    def lose_messages(self) -> None:
        """What slurmctld had to tell a slurmdbd that is away is lost; afterwards both are there again."""
        service = self._services["slurmctld"]
        os.kill(child_of(service.pid), signal.SIGTERM)
        service.wait(timeout=60)
        self.path("/var/spool/slurmctld/dbd.messages").unlink()
        self.start_slurmdbd()
        self._start_controller("slurmctld", "-D")

    @contextlib.contextmanager
    def stopped_slurmctld(self) -> Iterator[None]:
        """For the length of a block there is no slurmctld; it goes on where it was."""
        self.stop_service("slurmctld")
        try:
            yield
        finally:
            self._start_controller("slurmctld", "-D")

    @contextlib.contextmanager
    def frozen_slurmctld(self) -> Iterator[None]:
        """For the length of a block slurmctld does nothing: the kernel accepts connections, nobody answers."""
        service = self._services["slurmctld"]
        slurmctld = child_of(service.pid)
        os.kill(slurmctld, signal.SIGSTOP)
        try:
            yield
        finally:
            # nsenter, its parent, has stopped itself along with it.
            for pid in (slurmctld, service.pid):
                os.kill(pid, signal.SIGCONT)

    def _write_configuration(self) -> None:
        """The files of /etc/slurm."""
        for name, text in files(self.suite.slurm, free_ports(), slurmdbd=self._slurmdbd).items():
            self.path(f"/etc/slurm/{name}").write_text(text, encoding="ascii")

    def _start_munge(self) -> None:
        self._service("munged", "munge", ["munged", "--foreground"])
        self._wait("munge", "munged", ["munge", "--no-input"])

    def _start_database(self) -> None:
        install = ["mariadb-install-db", "--user=mysql", "--datadir=/var/lib/mysql", "--skip-test-db"]
        self.output(*install, "--auth-root-authentication-method=socket", seconds=60)
        server = ["mariadbd", "--no-defaults", "--user=mysql", "--datadir=/var/lib/mysql", "--skip-networking"]
        server += ["--socket=/run/mysqld/mysqld.sock", "--innodb-lock-wait-timeout=900"]
        if "innodb-snapshot-isolation" in self.output("mariadbd", "--no-defaults", "--verbose", "--help"):
            server += ["--innodb-snapshot-isolation=OFF"]  # slurmdbd before 25.05 does not know it
        self._service("mariadbd", "root", server)
        client = ["mariadb", "--socket=/run/mysqld/mysqld.sock", "--execute"]
        self._wait("MariaDB", "mariadbd", [*client, "select 1"])
        self.output(*client, DATABASE)

    def _start_controller(self, *argv: str) -> None:
        self._service("slurmctld", "slurm", list(argv) or ["slurmctld", "-D", "-c"])
        self._wait("slurmctld", "slurmctld", ["sh", "-c", "scontrol ping | grep -q UP"])

    def _start_nodes(self) -> None:
        """A slurmd for each node; returns when all of them are idle."""
        for node in NODES:
            self._service(f"slurmd-{node}", "root", ["slurmd", "-D", "-N", node])
        idle = ["sh", "-c", f"[ $(sinfo -h -N -t idle -o %N | sort -u | wc -l) = {len(NODES)} ]"]
        self._wait("the nodes", "slurmctld", idle)

    def _service(self, name: str, user: str, argv: list[str]) -> None:
        """Starts it, also again; its output goes to /var/log/NAME.output."""
        self._services[name] = self.popen(argv, user=user, log=self.path(f"/var/log/{name}.output"))

    def _wait(self, what: str, service: str, question: list[str]) -> None:
        """Asks until the command succeeds; the error ends with what the service said."""
        try:
            wait_for(what, lambda: self._answers(service, question), seconds=60)
        except LabError as error:
            raise LabError(f"Slurm {self.suite.slurm}: {error}\n{self.said_by(service)}") from None

    def _answers(self, service: str, question: list[str]) -> bool:
        if (code := self._services[service].poll()) is not None:
            raise LabError(f"{service} exited {code}")
        return self.run(*question, seconds=10).returncode == 0

    def said_by(self, service: str) -> str:
        """The last lines of a service's output and, if it keeps one, of its log."""
        output = self.path(f"/var/log/{service}.output")
        return tail(self.path(f"/var/log/slurm/{service}.log")) + "\n" + tail(output)


def free_ports() -> int:
    """The first of PORTS neighbouring ports of 127.0.0.1 that nobody uses, and that no other process is given."""
    for claimed in UNTRIED_PORTS:
        if claim := bound(claimed):
            CLAIMS.append(claim)
            if all(is_free(claimed + offset) for offset in range(1, PORTS + 1)):
                return claimed + 1
    raise LabError(f"no {PORTS} neighbouring free ports were found between 21000 and 31000")


def is_free(port: int) -> bool:
    if probe := bound(port):
        probe.close()
    return probe is not None


def bound(port: int) -> socket.socket | None:
    """Holds a port of 127.0.0.1; None when somebody else does."""
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return None
    return holder
