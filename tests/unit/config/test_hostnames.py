"""What nodes are called in what is sent, and what is said when it cannot be so."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.hostnames import HostNames, shortened
from cc_slurm_adapter.log import log_findings


def make_names(*pairs: tuple[str, str], nodes: tuple[str, ...] = ()) -> HostNames:
    names = HostNames(tuple((re.compile(pattern), replacement) for pattern, replacement in pairs), log_findings)
    names.learn(nodes)
    return names


@pytest.mark.parametrize(
    ("node", "sent"),
    [
        ("node01", "cn-01.example.org"),
        ("node01-ib", "node01-ib"),  # none matches
        ("login.local", "login"),
        ("r1_2_3", "r1-2-3"),  # each place, as re.sub does it
        ("node_1.local", "node_1"),  # the first that matches alone
    ],
)
def test_the_first_pattern_that_matches_counts(node: str, sent: str) -> None:
    pairs = (("^node([0-9]+)$", r"cn-\1.example.org"), (r"\.local$", ""), ("_", "-"))
    assert make_names(*pairs).sent(node) == sent
    assert make_names(*pairs, nodes=(node,)).sent(node) == sent


def test_without_patterns_nodes_are_called_as_slurm_does() -> None:
    assert make_names(nodes=("a", "b")).sent("a") == "a"


def test_nodes_that_would_have_one_name_keep_slurms_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    names = make_names((r"[ab]$", ""), nodes=("n1a", "n1b", "n2a"))
    assert [names.sent(node) for node in ("n1a", "n1b", "n2a")] == ["n1a", "n1b", "n2"]
    for nodes in (("n1a", "n1b", "n2a"), ("n1a", "n1b", "n3a")):
        names.learn(nodes)
    assert names.sent("n3a") == "n3"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "ERROR",
            "hostnameRewrite gives one name, n1, to n1a, n1b: they are sent as Slurm calls them. Correct the patterns,"
            " then reload",
        )
    ]


def test_a_node_is_not_given_the_name_of_another(caplog: pytest.LogCaptureFixture) -> None:
    names = make_names(("^a$", "b"), nodes=("a", "b"))
    assert (names.sent("a"), names.sent("b")) == ("a", "b")
    assert "one name, b, to a, b" in caplog.text


def test_a_node_that_slurm_lists_no_more_does_not_take_the_name_of_one_that_it_lists() -> None:
    names = make_names((r"-old$", ""), nodes=("n1", "n2-old"))
    assert (names.sent("n1-old"), names.sent("n3-old")) == ("n1-old", "n3")


def test_two_nodes_do_not_have_one_name_before_the_nodes_are_known_either() -> None:
    names = make_names((r"[ab]$", ""))
    assert [names.sent(node) for node in ("n1a", "n1b", "n1a", "n2b")] == ["n1", "n1b", "n1", "n2"]


@pytest.mark.parametrize(
    ("pattern", "replacement", "made"), [("^.*$", "", ""), ("^n", "-", "-1"), ("1$", "x" * 255, "n")]
)
def test_what_is_no_host_name_is_not_sent_and_said_once(
    pattern: str, replacement: str, made: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = make_names((pattern, replacement), nodes=("n1",))
    names.learn(("n1", "other"))
    assert names.sent("n1") == "n1"
    (line,) = [line for line in caplog.messages if "of the node n1" in line]
    assert line.startswith(f"hostnameRewrite makes '{made}")


def test_new_names_that_are_none_are_one_line_however_many(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [f"n{number:03}" for number in range(1000)]
    names = make_names(("^.*$", ""), nodes=tuple(nodes))
    assert [names.sent(node) for node in nodes] == nodes
    (line,) = caplog.messages
    assert "of the node n000, which is not a host name, nor are those of n001, " in line
    assert "n010 and 989 more: Slurm's name is sent" in line


@given(st.sets(st.text("ab1", min_size=1, max_size=4), max_size=30), st.sampled_from(["a", "b$", "^(a+)b*", "1"]))
def test_no_two_nodes_are_ever_sent_by_one_name(nodes: set[str], pattern: str) -> None:
    names = make_names((pattern, r""), ("^b", "a"), nodes=tuple(nodes))
    assert len({names.sent(node) for node in nodes}) == len(nodes)


def test_long_lists_of_nodes_are_shortened() -> None:
    nodes = [f"n{number:02}" for number in range(12)]
    assert shortened(nodes) == "n00, n01, n02, n03, n04, n05, n06, n07, n08, n09 and 2 more"
    assert shortened(["b", "a"]) == "a, b"
