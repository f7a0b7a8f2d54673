"""Mistakes that administrators make on the way to a running daemon: each is made for the length of a block."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from examples.practice.cc_backend import CcBackend, CcBackendServer, OtherAnswer
from examples.practice.cc_backend.api import Request

from .checked_site import CLUSTERS_PATH, DAY, Site, token_until
from .installation import CONFIG, RUN_FOLDER, STATE_FOLDER
from .namespaces import wait_for
from .slurm_conf import CLUSTER, FRAGILE_NODE, NODES, SHIPPED_FILE
from .slurm_jobs import PCI_ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .slurm_lab import SlurmLab

ACCOUNT = "cc-slurm-adapter"
"""The daemon's user, without its group."""
CLOCK_OFF = 62.0
"""Seconds: a minute, and what the whole seconds of the header Date hide of it."""
UNUSED_PORT = 9
"""Of 127.0.0.1; nothing listens there."""
OTHER_CARDS = [f"00000000:{bus}:00.0" for bus in ("3B", "5E", "86", "AF")]
WARN, FAIL = "WARN", "FAIL"


class Expected(NamedTuple):
    """A line that -check must print."""

    word: str
    subject: str
    said: str
    """A part of the text."""
    next_step: str
    """Its beginning."""


class Mistake(NamedTuple):
    """How it is made, and all lines that are not OK then, in their order."""

    make: Callable[[Site], AbstractContextManager[None]]
    lines: tuple[Expected, ...]


@contextlib.contextmanager
def configured(site: Site, **settings: Any) -> Iterator[None]:
    """Other values in config.json."""
    site.configure(**settings)
    try:
        yield
    finally:
        site.configure()


def setting(**settings: Any) -> Callable[[Site], AbstractContextManager[None]]:
    """A mistake in config.json alone."""
    return lambda site: configured(site, **settings)


def other_token(site: Site) -> AbstractContextManager[None]:
    """That of another cc-backend."""
    return configured(site, ccRestJwt=token_until(time.time() + 50 * DAY))


@contextlib.contextmanager
def expired_token(site: Site) -> Iterator[None]:
    """One that cc-backend took until yesterday. It answers in the words of its library for tokens."""
    error = {"status": "Unauthorized", "error": "token has invalid claims: token is expired"}
    refusal = OtherAnswer("/api/", status=401, body=json.dumps(error).encode(), content_type="application/json")
    with configured(site, ccRestJwt=token_until(time.time() - DAY)), site.backend.fault(refusal):
        yield


@contextlib.contextmanager
def wrong_path(site: Site) -> Iterator[None]:
    """A proxy has cc-backend elsewhere."""
    with configured(site, ccRestUrl=f"{site.installed.server.url}/monitoring"):
        yield


@contextlib.contextmanager
def node_missing_in_cc_backend(site: Site) -> Iterator[None]:
    """One was added to Slurm only."""
    known = {CLUSTER: [node for node in NODES if node != FRAGILE_NODE]}
    server = CcBackendServer(CcBackend(known, site.token, describes_hardware=False))
    server.start()
    try:
        with configured(site, ccRestUrl=server.url):
            yield
    finally:
        server.close()


@contextlib.contextmanager
def other_cards_in_cc_backend(site: Site) -> Iterator[None]:
    """cluster.json has other addresses than gpuPciAddrs."""
    document = json.loads(site.backend.answer(Request("GET", CLUSTERS_PATH, token=site.token)).body)
    for cluster in document["clusters"]:
        for sub_cluster in cluster["subClusters"]:
            accelerators = [{"id": card, "type": "Nvidia GPU", "model": "H100"} for card in OTHER_CARDS]
            sub_cluster["topology"]["accelerators"] = accelerators
    body = json.dumps(document).encode()
    with site.backend.fault(OtherAnswer(CLUSTERS_PATH, status=200, body=body, content_type="application/json")):
        yield


@contextlib.contextmanager
def no_operator(site: Site) -> Iterator[None]:
    """The daemon's user has no AdminLevel."""
    set_level(site.lab, "None")
    try:
        yield
    finally:
        set_level(site.lab, "Operator")


def set_level(lab: SlurmLab, level: str) -> None:
    """It may be so already, which sacctmgr calls a failure."""
    lab.run("sacctmgr", "-i", "modify", "user", ACCOUNT, "set", f"AdminLevel={level}")


@contextlib.contextmanager
def not_in_accounting(site: Site) -> Iterator[None]:
    """The rights were left out of the installation."""
    site.lab.output("sacctmgr", "-i", "delete", "user", ACCOUNT)
    try:
        yield
    finally:
        site.lab.run("sacctmgr", "-i", "add", "user", ACCOUNT, "Account=root", "AdminLevel=Operator")


def private(what: str) -> Callable[[Site], AbstractContextManager[None]]:
    """PrivateData, and a daemon's user who is no operator."""

    @contextlib.contextmanager
    def hide(site: Site) -> Iterator[None]:
        with (
            no_operator(site),
            slurm_conf(site.lab, lambda text: f"{text}PrivateData={what}\n", lambda shown: f"= {what}\n" in shown),
        ):
            yield

    return hide


@contextlib.contextmanager
def hooks_not_set(site: Site) -> Iterator[None]:
    """slurm.conf has no lines for them."""

    def without_hooks(text: str) -> str:
        return "".join(line for line in text.splitlines(keepends=True) if f"={SHIPPED_FILE}" not in line)

    with slurm_conf(site.lab, without_hooks, lambda shown: str(SHIPPED_FILE) not in shown):
        yield


@contextlib.contextmanager
def slurm_conf(lab: SlurmLab, change: Callable[[str], str], is_other: Callable[[str], bool]) -> Iterator[None]:
    """Another slurm.conf for slurmctld. `is_other` tells whether `scontrol show config` has printed that one."""
    file = lab.path("/etc/slurm/slurm.conf")
    text = file.read_text(encoding="ascii")
    try:
        file.write_text(change(text), encoding="ascii")
        reconfigure(lab, is_other)
        yield
    finally:
        file.write_text(text, encoding="ascii")
        reconfigure(lab, lambda shown: not is_other(shown))


def reconfigure(lab: SlurmLab, is_read: Callable[[str], bool]) -> None:
    """Returns when slurmctld has read its slurm.conf."""
    lab.output("scontrol", "reconfigure")
    wait_for("slurm.conf", lambda: is_read(lab.output("scontrol", "show", "config")), seconds=30, every=0.2)


def rights(path: Path, owner: str, mode: str) -> Callable[[Site], AbstractContextManager[None]]:
    """A file or folder with another owner and mode."""

    @contextlib.contextmanager
    def change(site: Site) -> Iterator[None]:
        lab = site.lab
        right_owner, right_mode = lab.output("stat", "-c", "%u:%g %a", str(path)).split()
        lab.output("chown", owner, str(path))
        lab.output("chmod", mode, str(path))
        try:
            yield
        finally:
            lab.output("chown", right_owner, str(path))
            lab.output("chmod", right_mode, str(path))

    return change


def clock_off(seconds: float) -> Callable[[Site], AbstractContextManager[None]]:
    """cc-backend's."""

    @contextlib.contextmanager
    def advance(site: Site) -> Iterator[None]:
        site.backend.clock.advance(seconds)
        try:
            yield
        finally:
            site.backend.clock.advance(-seconds)

    return advance


NEW_TOKEN = "put a new token with the role api into ccRestJwt, then reload"
OPERATOR = f"run sacctmgr -i modify user {ACCOUNT} set adminlevel=operator"
CLOCKS = "see timedatectl or chronyc tracking on both hosts"
SHARE = "run the daemon with group slurm (Group= in its systemd unit), or run 'chgrp slurm "
MISTAKES = {
    "wrong token": Mistake(other_token, (Expected(FAIL, "token", "refuses the token", NEW_TOKEN),)),
    "expired token": Mistake(
        expired_token,
        (Expected(FAIL, "token", "the token has expired, at ", NEW_TOKEN),),
    ),
    "nothing at the URL": Mistake(
        setting(ccRestUrl=f"http://127.0.0.1:{UNUSED_PORT}"),
        (Expected(FAIL, "ccRestUrl", f":{UNUSED_PORT}: connection refused", "start cc-backend there, or correct the"),),
    ),
    "wrong path in the URL": Mistake(wrong_path, (Expected(FAIL, "ccRestUrl", "HTTP 404", "write http://127.0.0.1:"),)),
    "TLS in the URL": Mistake(
        lambda site: configured(site, ccRestUrl=site.installed.server.url.replace("http:", "https:")),
        (Expected(FAIL, "ccRestUrl", "TLS", "correct ccRestUrl"),),
    ),
    "unknown cluster": Mistake(
        setting(clusterName="lba"),
        (Expected(FAIL, "clusterName", "does not know the cluster lba, only lab", "add it there, or set clusterName"),),
    ),
    "node missing in cc-backend": Mistake(
        node_missing_in_cc_backend,
        (
            Expected(
                WARN,
                "subclusters",
                f"1 node of Slurm ({FRAGILE_NODE}) is not in a subcluster of {CLUSTER}",
                "add them to a subcluster in cc-backend's cluster.json",
            ),
        ),
    ),
    "no operator": Mistake(
        no_operator, (Expected(WARN, "privileges", "AdminLevel None in Slurm, which hides other users'", OPERATOR),)
    ),
    "not in accounting": Mistake(
        not_in_accounting,
        (
            Expected(
                WARN,
                "privileges",
                "is not known to Slurm's accounting",
                f"run sacctmgr -i add user {ACCOUNT} account=root adminlevel=operator",
            ),
        ),
    ),
    "PrivateData": Mistake(
        private("jobs"), (Expected(WARN, "privileges", "by PrivateData=jobs, their jobs", OPERATOR),)
    ),
    "PrivateData of nodes": Mistake(
        private("jobs,nodes"),
        (
            Expected(FAIL, "nodes", "Access/permission denied", "PrivateData hides them from the daemon's user"),
            Expected(WARN, "privileges", "by PrivateData=jobs,nodes, their jobs", OPERATOR),
            Expected(WARN, "subclusters", "Slurm's nodes are not known", "make Slurm answer"),
        ),
    ),
    "too few GPUs": Mistake(
        setting(gpuPciAddrs={"^node": PCI_ADDRESSES[:2]}),
        (Expected(WARN, "gpuPciAddrs", "4 gpu:h100 each, for which gpuPciAddrs has 2", "Complete gpuPciAddrs"),),
    ),
    "too many GPUs": Mistake(
        setting(gpuPciAddrs={"^node": [*PCI_ADDRESSES, OTHER_CARDS[0]]}),
        (Expected(WARN, "gpuPciAddrs", "has 5 addresses for nodes that have 4 GPUs", "See that they are in Slurm's"),),
    ),
    "GPUs of nodes that there are not": Mistake(
        setting(gpuPciAddrs={"^nod3": PCI_ADDRESSES}),
        (
            Expected(WARN, "gpuPciAddrs", "'^nod3' matches none of Slurm's 7 nodes", "correct or remove it"),
            Expected(WARN, "gpuPciAddrs", "for which gpuPciAddrs has 0 addresses", "Complete gpuPciAddrs"),
        ),
    ),
    "other GPUs in cc-backend": Mistake(
        other_cards_in_cc_backend,
        (
            Expected(
                WARN, "gpuPciAddrs", "differs from cc-backend's topology", "correct gpuPciAddrs, then reload, or corr"
            ),
        ),
    ),
    "hooks not set": Mistake(
        hooks_not_set,
        (
            Expected(
                WARN,
                "hooks",
                "PrologSlurmctld is not set; EpilogSlurmctld is not set",
                "Set PrologSlurmctld and EpilogSlurmctld in slurm.conf to this program",
            ),
        ),
    ),
    "hook not executable": Mistake(
        rights(SHIPPED_FILE, f"{ACCOUNT}:root", "700"),
        (Expected(FAIL, "hooks", f"{SHIPPED_FILE} (PrologSlurmctld) is not executable for", "run 'chmod a+rx "),),
    ),
    "state folder": Mistake(
        rights(STATE_FOLDER, "root:root", "755"),
        (Expected(FAIL, "lastRunPath", f"may not write in {STATE_FOLDER}", f"run 'chown {ACCOUNT} {STATE_FOLDER}'"),),
    ),
    "runtime folder": Mistake(
        rights(RUN_FOLDER, f"{ACCOUNT}:root", "700"),
        (
            Expected(FAIL, "events folder", f"the permissions of {RUN_FOLDER} forbid it", SHARE),
            Expected(WARN, "hook socket", f"the permissions of {RUN_FOLDER} forbid it", SHARE),
        ),
    ),
    "events folder": Mistake(
        rights(RUN_FOLDER / "events", f"{ACCOUNT}:slurm", "700"),
        (Expected(FAIL, "events folder", f"the permissions of {RUN_FOLDER}/events forbid it", SHARE),),
    ),
    "configuration of root": Mistake(
        rights(CONFIG, "root:root", "600"),
        (Expected(FAIL, "configuration", f"{CONFIG}: Permission denied", "let the daemon's user read it"),),
    ),
    "cc-backend's clock ahead": Mistake(
        clock_off(CLOCK_OFF), (Expected(FAIL, "clock", "s ahead of this host's", CLOCKS),)
    ),
    "cc-backend's clock behind": Mistake(
        clock_off(-CLOCK_OFF), (Expected(FAIL, "clock", "s behind this host's", CLOCKS),)
    ),
}
