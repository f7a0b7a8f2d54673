"""Brings up a real Slurm of each release, side by side, and installs the built file on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Protocol, TypeVar, Union

import pytest

from build import BOOTED
from examples.practice.cc_backend.clusters import DEFAULT_CLUSTERS, Clusters

from .campaign import Campaign, run_campaign
from .controller import BY_HAND, PACKAGED, Controller
from .debian import FOLDER, SUITES, make_chroot, read_notes
from .installation import Installation
from .killed import Killed, run_killed
from .missing_jobs import CLUSTERS, Missing, run_missing
from .namespaces import LabError
from .odd_cluster import OddCluster
from .odd_conf import ALL_NODES, ODD_CLUSTER, RELEASE
from .odd_nodes import OTHER_NAME, OddNodes, run_odd_nodes
from .packaged import Life, PackagedMachine
from .slurm_jobs import clear_queue
from .slurm_lab import SlurmLab
from .troubles import NAMES, Troubles, run_troubles
from .two_clusters import TwoClusters
from .without_slurmdbd import SmallCampaign, run_without_slurmdbd

ROOT = Path(__file__).parents[2]
INSTALLED_AS = {"bookworm": BY_HAND, "trixie": PACKAGED}
"""Both ways of docs/install.md are followed, each on one of the machines."""
BUILT_FILE = ROOT / "dist" / "cc-slurm-adapter"

Answer = TypeVar("Answer")
Cluster = Union[SlurmLab, LabError]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`build.py test` gives each place's tests to a process of their own: they wait most of the time."""
    places = [*SUITES, *BOOTED]
    parser.addoption("--only", choices=places, help="run tests on this Slurm, or on a machine booted from this Debian")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test here that wants a release of Slurm, or a machine, is run for each of them."""
    for name, all_there_are in (("release", SUITES), ("debian", BOOTED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(all_there_are), scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the tests of the place that --only names."""
    only = config.getoption("--only", default=None)
    if only:
        config.hook.pytest_deselected(items=[item for item in items if place_of(item) != only])
        items[:] = [item for item in items if place_of(item) == only]


def place_of(item: pytest.Item) -> str:
    """The release or the Debian of a test; those with neither go with RELEASE, which their own clusters have."""
    call = getattr(item, "callspec", None)  # only a test with parameters has it
    parameters = call.params if call else {}
    return str(parameters.get("release") or parameters.get("debian") or RELEASE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A newer Slurm than the tests know is no failure, but is said."""
    for note in read_notes(FOLDER):
        terminalreporter.write_line(note)


def wanted_releases(session: pytest.Session, fixture: str, parameter: str = "release") -> list[str]:
    """Of the chosen tests that use a fixture."""
    items = [item for item in session.items if isinstance(item, pytest.Function) and fixture in item.fixturenames]
    return sorted({str(item.callspec.params[parameter]) for item in items})


def side_by_side(releases: list[str], make: Callable[[str], Answer]) -> dict[str, Answer]:
    with ThreadPoolExecutor() as threads:
        return dict(zip(releases, threads.map(make, releases)))


def log_of(name: str) -> Path:
    """What the daemons of all tests on a cluster say; kept for whoever looks into a failure."""
    return FOLDER / f"daemon-{name}.log"


@pytest.fixture(scope="session")
def clusters(request: pytest.FixtureRequest) -> Iterator[dict[str, Cluster]]:
    """A running cluster, or why there is none, of every release that a chosen test wants."""
    if not BUILT_FILE.exists():
        pytest.fail(f"{BUILT_FILE} does not exist: python3 build.py build", pytrace=False)
    started = side_by_side(wanted_releases(request.session, "release"), start_cluster)
    yield started
    for cluster in started.values():
        if isinstance(cluster, SlurmLab):
            cluster.close()


def start_cluster(release: str) -> Cluster:
    try:
        cluster = SlurmLab(SUITES[release], make_chroot(SUITES[release], FOLDER))
    except LabError as error:
        return LabError(f"no Slurm {release}: {error}")
    try:
        cluster.start(BUILT_FILE)
    except LabError as error:
        cluster.close()
        return error
    log_of(release).write_bytes(b"")
    return cluster


@pytest.fixture(scope="session")
def lab(release: str, clusters: dict[str, Cluster]) -> SlurmLab:
    """A running cluster. That it cannot be had is a failure, never a reason to skip."""
    cluster = clusters[release]
    if isinstance(cluster, LabError):
        pytest.fail(str(cluster), pytrace=False)
    return cluster


@pytest.fixture
def installation(release: str, lab: SlurmLab) -> Iterator[Installation]:
    """A daemon that is not yet started and a cc-backend, both without any memory, and an empty queue."""
    with lab.in_use, Installation(lab, log_of(release)) as installed:
        yield installed
        clear_queue(lab)


@pytest.fixture(scope="session")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as threads:
        yield threads


class Begin(Protocol):
    def __call__(
        self, fixture: str, run: Callable[[Installation], Answer], hosts: Clusters = DEFAULT_CLUSTERS
    ) -> dict[str, Future[Answer]]: ...


@pytest.fixture(scope="session")
def begin(request: pytest.FixtureRequest, clusters: dict[str, Cluster], threads: ThreadPoolExecutor) -> Begin:
    """Begins to run something long on all clusters at the same time, for the tests that use a fixture."""

    def run_on(cluster: SlurmLab, run: Callable[[Installation], Answer], hosts: Clusters) -> Answer:
        with cluster.in_use, Installation(cluster, log_of(cluster.suite.slurm), clusters=hosts) as installed:
            return run(installed)

    def begin_on_all(
        fixture: str, run: Callable[[Installation], Answer], hosts: Clusters = DEFAULT_CLUSTERS
    ) -> dict[str, Future[Answer]]:
        wanted = {release: clusters[release] for release in wanted_releases(request.session, fixture)}
        return {
            release: threads.submit(run_on, cluster, run, hosts)
            for release, cluster in wanted.items()
            if isinstance(cluster, SlurmLab)
        }

    return begin_on_all


@pytest.fixture(scope="session")
def campaigns(begin: Begin) -> dict[str, Future[Campaign]]:
    return begin("campaign", run_campaign)


@pytest.fixture(scope="session")
def campaign(release: str, lab: SlurmLab, campaigns: dict[str, Future[Campaign]]) -> Campaign:
    """All the jobs of the campaign, run and reported once for each cluster."""
    assert lab.suite.slurm == release
    return campaigns[release].result()


@pytest.fixture(scope="session")
def kills(begin: Begin) -> dict[str, Future[Killed]]:
    return begin("killed", run_killed)


@pytest.fixture(scope="session")
def killed(release: str, lab: SlurmLab, kills: dict[str, Future[Killed]]) -> Killed:
    """Jobs whose daemon was killed twice, once for each cluster."""
    assert lab.suite.slurm == release
    return kills[release].result()


@pytest.fixture(scope="session")
def all_missing(begin: Begin) -> dict[str, Future[Missing]]:
    return begin("missing", run_missing, CLUSTERS)


@pytest.fixture(scope="session")
def missing(release: str, lab: SlurmLab, all_missing: dict[str, Future[Missing]]) -> Missing:
    """Jobs that are missing in cc-backend, and what -job says of them, once for each cluster."""
    assert lab.suite.slurm == release
    return all_missing[release].result()


@pytest.fixture(scope="session")
def small_campaigns(
    request: pytest.FixtureRequest, clusters: dict[str, Cluster], threads: ThreadPoolExecutor
) -> dict[str, Future[SmallCampaign]]:
    """Those on clusters of their own without slurmdbd, begun at the same time."""

    def run(release: str, root: Path) -> SmallCampaign:
        log = log_of(f"{release}-without-slurmdbd")
        log.write_bytes(b"")
        with SlurmLab(SUITES[release], root, slurmdbd=False) as cluster:
            cluster.start(BUILT_FILE)
            with Installation(cluster, log) as installed:
                return run_without_slurmdbd(installed)

    wanted = {release: clusters[release] for release in wanted_releases(request.session, "small_campaign")}
    return {
        release: threads.submit(run, release, cluster.root)
        for release, cluster in wanted.items()
        if isinstance(cluster, SlurmLab)
    }


@pytest.fixture(scope="session")
def small_campaign(release: str, lab: SlurmLab, small_campaigns: dict[str, Future[SmallCampaign]]) -> SmallCampaign:
    """Some jobs on a cluster of the same release without slurmdbd."""
    assert lab.suite.slurm == release
    return small_campaigns[release].result()


@contextlib.contextmanager
def begun(session: pytest.Session, fixture: str, run: Callable[[], Answer]) -> Iterator[Future[Answer] | None]:
    """Begun before all tests, because it takes long, if one of the chosen tests uses the fixture."""
    items = [item for item in session.items if isinstance(item, pytest.Function)]
    if not any(fixture in item.fixturenames for item in items):
        yield None
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield thread.submit(run)


@pytest.fixture(scope="session", autouse=True)
def troubles_begun(request: pytest.FixtureRequest) -> Iterator[Future[Troubles] | None]:
    with begun(request.session, "troubles", run_troubles_on_own_cluster) as future:
        yield future


def run_troubles_on_own_cluster() -> Troubles:
    release = "24.11"
    with contextlib.ExitStack() as until_the_end:
        cluster = until_the_end.enter_context(SlurmLab(SUITES[release], make_chroot(SUITES[release], FOLDER)))
        cluster.start(BUILT_FILE)
        installed = {}
        for name in NAMES:
            log = log_of(f"{release}-troubles-{name or 'hooked'}")
            log.write_bytes(b"")
            installed[name] = until_the_end.enter_context(Installation(cluster, log, name))
        return run_troubles(cluster, installed)


@pytest.fixture(scope="session")
def troubles(troubles_begun: Future[Troubles]) -> Troubles:
    """Several daemons on one cluster, whose cc-backends and Slurm had troubles while the same jobs ran."""
    return troubles_begun.result()


@pytest.fixture(scope="session", autouse=True)
def odd_nodes_begun(request: pytest.FixtureRequest) -> Iterator[Future[OddNodes] | None]:
    with begun(request.session, "odd_nodes", run_odd_nodes_on_own_cluster) as future:
        yield future


def run_odd_nodes_on_own_cluster() -> OddNodes:
    with contextlib.ExitStack() as until_the_end:
        cluster = OddCluster(make_chroot(SUITES[RELEASE], FOLDER))
        until_the_end.callback(cluster.close)
        cluster.start(BUILT_FILE)
        installed = []
        for name in ("", "late", "renamed"):
            log = log_of(f"{RELEASE}-odd-{name or 'hooked'}")
            log.write_bytes(b"")
            hosts = {ODD_CLUSTER: [*ALL_NODES, OTHER_NAME]}
            installed.append(until_the_end.enter_context(Installation(cluster, log, name, hosts)))
        return run_odd_nodes(cluster, *installed)


@pytest.fixture(scope="session")
def odd_nodes(odd_nodes_begun: Future[OddNodes]) -> OddNodes:
    """Jobs on the cluster of odd nodes, and what three daemons reported of them."""
    return odd_nodes_begun.result()


@pytest.fixture(scope="session")
def controllers(request: pytest.FixtureRequest) -> Iterator[dict[str, Controller | LabError]]:
    """A machine with Slurm and the daemon's unit, or why there is none, of every Debian that a chosen test wants."""
    if not BUILT_FILE.exists():
        pytest.fail(f"{BUILT_FILE} does not exist: python3 build.py build", pytrace=False)
    made = side_by_side(wanted_releases(request.session, "controller", "debian"), boot_controller)
    yield made
    for controller in made.values():
        if isinstance(controller, Controller):
            controller.close()


@pytest.fixture(scope="session")
def two_clusters() -> Iterator[TwoClusters]:
    """A machine with two clusters and a daemon for each."""
    suite = SUITES[RELEASE]
    with TwoClusters(suite, make_chroot(suite, FOLDER), FOLDER / "machine-two-clusters.log") as made:
        made.set_up()
        yield made


@pytest.fixture(scope="session")
def packaged(debian: str, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The life of the .deb on a machine of its own, once for each Debian."""
    suite = next(suite for suite in SUITES.values() if suite.name == debian)
    log = FOLDER / f"machine-packaged-{debian}.log"
    with Controller(suite, make_chroot(suite, FOLDER), log) as controller:
        return PackagedMachine(controller, tmp_path_factory.mktemp("packages")).live()


def boot_controller(debian: str) -> Controller | LabError:
    suite = next(suite for suite in SUITES.values() if suite.name == debian)
    try:
        root, log = make_chroot(suite, FOLDER), FOLDER / f"machine-{debian}.log"
        controller = Controller(suite, root, log, INSTALLED_AS[debian])
    except LabError as error:
        return LabError(f"no machine with {BOOTED[debian]}: {error}")
    try:
        controller.set_up()
    except LabError as error:
        controller.close()
        return error
    return controller


@pytest.fixture
def controller(debian: str, controllers: dict[str, Controller | LabError]) -> Controller:
    """A machine on which all is as installed. That it cannot be had is a failure, never a reason to skip."""
    controller = controllers[debian]
    if isinstance(controller, LabError):
        pytest.fail(str(controller), pytrace=False)
    controller.as_installed()
    return controller
