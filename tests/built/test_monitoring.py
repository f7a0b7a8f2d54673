"""A real Prometheus scrapes the built file, and a real browser opens its page."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.metrics import METRICS, PREFIX
from examples.practice.cc_backend import refused_jobs
from examples.practice.site import PATIENCE, Site
from examples.practice.slurm.model import JobRequest
from tests.browser.chromium import Chromium
from tests.built.asking import ask
from tests.built.test_daemon_life import let_hang, site_of_nobody
from tests.nats.nats_server import free_port
from tests.prometheus.conftest import StartPrometheus
from tests.prometheus.server import PrometheusServer
from tests.prometheus.test_examples import rules

LONG = JobRequest(name="secret-name", user="alice", duration=600)
"""So long that its start is always seen in time; it is cancelled."""
RULES = {rule.name: rule.expression for rule in rules()}
SCREENS = [(dark, width) for dark in (False, True) for width in (1280, 390)]


@contextmanager
def monitored_site(adapter: Path) -> Iterator[tuple[Site, str]]:
    """A running daemon and its metricsListen. It is an ordinary user's, since root is a fault."""
    place = f"127.0.0.1:{free_port()}"
    with site_of_nobody(adapter) if os.geteuid() == 0 else Site(adapter) as site:
        site.daemon.configure(metricsListen=place, slurmPollInterval=2)
        site.daemon.start()
        site.wait_for("its metrics", lambda: "can be asked there" in answer(place))
        yield site, place


def answer(place: str) -> str:
    """What /-/ready says; the first words are ours if it is ready."""
    try:
        found = ask(place, "/-/ready")
    except OSError as error:
        return str(error)
    return "can be asked there" if found.status == 200 else found.body


def firing(prometheus: PrometheusServer) -> set[str]:
    """The alerts whose expression holds now, whatever they wait for before they fire."""
    return {name for name, expression in RULES.items() if prometheus.query(expression)}


def wait_for_alerts(site: Site, prometheus: PrometheusServer, *names: str) -> None:
    site.wait_for(f"the alerts {', '.join(names) or '(none)'}", lambda: firing(prometheus) == set(names))


@pytest.mark.prometheus
def test_prometheus_reads_all_metrics_and_their_values_are_right(copy: Path, start_prometheus: StartPrometheus) -> None:
    with monitored_site(copy) as (site, place):
        prometheus = start_prometheus(place)
        prometheus.wait_until_up()
        first, second = (site.cluster.submit(LONG) for _ in range(2))
        site.wait_for("both starts", lambda: site.has_started(first, second))
        site.cluster.cancel(first)
        site.wait_for("a stop", lambda: site.has_stopped(first))
        for expression, value in (
            ('cc_slurm_adapter_open_runs{stage="started"}', 1),
            ('cc_slurm_adapter_deliveries_total{sink="cc_rest",kind="start",result="delivered"}', 2),
            ('cc_slurm_adapter_deliveries_total{sink="cc_rest",kind="stop",result="delivered"}', 1),
            ("sum(cc_slurm_adapter_hook_events_total)", 3),
            ('cc_slurm_adapter_rows{sink="cc_rest",state="pending"}', 0),
            ('cc_slurm_adapter_event_to_accepted_seconds_count{kind="start"}', 2),
            ('cc_slurm_adapter_build_info{slurm="24.11.5"}', 1),
            ("cc_slurm_adapter_started", 1),
            ('sum(up{job="cc-slurm-adapter"})', 1),
        ):
            found = [sample.value for sample in prometheus.query(expression)]
            site.wait_for(f"{expression} == {value}, not {found}", lambda: value_of(prometheus, expression) == value)  # noqa: B023
        assert prometheus.last_error() == ""
        kinds = {PREFIX + metric.name: metric.kind for metric in METRICS}
        types = prometheus.types()
        assert types.items() <= kinds.items()
        assert "cc_slurm_adapter_commands_total" in types
        assert not [line for line in prometheus.log_text().splitlines() if "level=error" in line]


def value_of(prometheus: PrometheusServer, expression: str) -> float | None:
    """None if it has no value yet."""
    return next((sample.value for sample in prometheus.query(expression)), None)


@pytest.mark.prometheus
def test_alert_rules_hold_when_something_is_wrong_and_only_then(copy: Path, start_prometheus: StartPrometheus) -> None:
    """Their expressions; how long each must hold is tested with promtool."""
    with monitored_site(copy) as (site, place):
        prometheus = start_prometheus(place)
        prometheus.wait_until_up()
        wait_for_alerts(site, prometheus)
        site.server.stop()
        job = site.cluster.submit(LONG)
        wait_for_alerts(site, prometheus, "CcSlurmAdapterDestinationFailing")
        site.server.start()
        site.wait_for("the job", lambda: site.has_started(job))
        wait_for_alerts(site, prometheus)
        token, site.backend.token = site.backend.token, "another"
        site.cluster.submit(LONG)
        refuses = ("CcSlurmAdapterDestinationFailing", "CcSlurmAdapterDestinationRefuses")
        wait_for_alerts(site, prometheus, *refuses)
        site.backend.token = token
        site.daemon.signal(signal.SIGHUP)
        wait_for_alerts(site, prometheus)
        fault = site.backend.add_fault(refused_jobs([job + 2]))
        assert site.cluster.submit(LONG) == job + 2
        wait_for_alerts(site, prometheus, "CcSlurmAdapterParked")
        site.backend.remove_fault(fault)
        site.daemon.signal(signal.SIGHUP)
        wait_for_alerts(site, prometheus)
        site.cluster.set_down("slurmctld", down=True)
        wait_for_alerts(site, prometheus, "CcSlurmAdapterSlurmFailing")
        site.cluster.set_down("slurmctld", down=False)
        wait_for_alerts(site, prometheus)
        site.daemon.stop()
        wait_for_alerts(site, prometheus, "CcSlurmAdapterDown", "CcSlurmAdapterAbsent")
        let_hang(Path(site.cluster.bin) / "scontrol", site.folder / "hanging")
        site.daemon.launch()
        wait_for_alerts(site, prometheus, "CcSlurmAdapterNotStarted")


@pytest.mark.browser
def test_a_browser_shows_that_all_is_well_then_a_fault_and_then_that_it_is_over(
    copy: Path, chromium: Chromium, tmp_path: Path
) -> None:
    with monitored_site(copy) as (site, place):
        job = site.cluster.submit(LONG)
        site.wait_for("the job", lambda: site.has_started(job))
        look(site, chromium, place, "All is well", tmp_path)
        site.server.stop()
        site.cluster.cancel(job)
        look(
            site,
            chromium,
            place,
            "1 fault",
            tmp_path,
            "cc-backend cannot be reached",
            "Next step: start cc-backend there",
        )
        site.server.start()
        look(site, chromium, place, "All is well", tmp_path)
        site.wait_for("the job", lambda: site.has_stopped(job))


def look(site: Site, chromium: Chromium, place: str, headline: str, pictures: Path, *words: str) -> None:
    """Opens the page on all screens as soon as it has that headline."""
    site.wait_for(headline, lambda: f">{headline}</h1>" in ask(place, "/").body, PATIENCE)
    for dark, width in SCREENS:
        with chromium.show(f"http://{place}/", dark=dark, width=width) as tab:
            name = f"{headline.replace(' ', '-').lower()}-{'dark' if dark else 'light'}-{width}.png"
            (pictures / name).write_bytes(tab.picture())
            assert tab.text.count(headline) == 1
            assert [each for each in words if each not in tab.text] == []
            assert LONG.name not in tab.text
            assert tab.problems == []
            assert tab.evaluate("document.documentElement.scrollWidth") == width, "nothing lies outside of the window"
            assert tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == dark
            assert tab.evaluate("document.querySelectorAll('script, link, img, iframe').length") == 0


@pytest.mark.browser
def test_the_page_loads_itself_again(copy: Path, chromium: Chromium) -> None:
    """Which the policy that comes with it must not forbid."""
    with monitored_site(copy) as (site, place), chromium.show(f"http://{place}/") as tab:
        assert "All is well" in tab.text
        site.server.stop()
        site.cluster.submit(LONG)
        site.wait_for("the fault", lambda: "1 fault" in tab.text)
        assert tab.problems == []
