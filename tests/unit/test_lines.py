"""What others write cannot forge a line, command a terminal or turn a text round; and each line has its priority."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter import hooks, lines, log
from cc_slurm_adapter.cli.main import run_command
from cc_slurm_adapter.lines import MAX_LOGGED, printable
from cc_slurm_adapter.log import NOTICE, describe_error
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.sinks.http_client import HttpResponse
from cc_slurm_adapter.sinks.rest import judge

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xD800, 0xDFFF)} | set(
    BIDI
)
SEEN = {"L", "M", "N", "P", "S"}
"""The first letters of Unicode's categories whose characters are to be seen."""


def test_every_code_point_comes_out_as_itself_or_as_an_escape_in_ascii() -> None:
    escapes: set[str] = set()
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        found = printable(char)
        if char == " " or unicodedata.category(char)[0] in SEEN:
            assert found == char, hex(code)
        else:
            assert found.isascii(), hex(code)
            assert found.isprintable(), hex(code)
            assert found.startswith("\\"), hex(code)
            assert found not in escapes, hex(code)
            escapes.add(found)
    assert {printable(char) for char in CONTROLS} <= escapes


@given(st.text(st.characters(exclude_categories=())))
def test_a_text_is_one_line_that_can_be_written(text: str) -> None:
    found = printable(text)
    assert len(found.splitlines()) <= 1
    assert found.encode("utf-8").decode("utf-8") == found
    assert not CONTROLS & set(found)
    assert printable(found) == found


class Stderr:
    """What is written to standard error, which the journal reads; logging is set up as the daemon does it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().err

    def lines(self) -> list[str]:
        return self.text().split("\n")[:-1]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stderr]:
    root = logging.getLogger()
    handlers, level, excepthook, unraisablehook = root.handlers[:], root.level, threading.excepthook, sys.unraisablehook
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    yield Stderr(capsys)
    logging.captureWarnings(False)
    root.handlers[:], threading.excepthook, sys.unraisablehook = handlers, excepthook, unraisablehook
    root.setLevel(level)


def test_what_a_destination_answers_forges_no_line(stderr: Stderr) -> None:
    log.set_up(3)
    forged = "bad name \0<2>FORGED: slurmctld is on fire\x1b]0;title\a\r<3>also\u2028forged\n<1>and this\u202e"
    answer = judge(Kind.START, HttpResponse(400, json.dumps({"status": "x", "error": forged}).encode()))
    logging.getLogger("x").warning("%s: %s", "job 1", answer.reason)
    (line,) = stderr.lines()
    assert line == (
        r"<4>WARNING job 1: HTTP 400: bad name \x00<2>FORGED: slurmctld is on fire\x1b]0;title\x07\r<3>also\u2028forged"
        r"\n<1>and this\u202e"
    )


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.CRITICAL, "<2>CRITICAL"),
        (logging.ERROR, "<3>ERROR"),
        (logging.WARNING, "<4>WARNING"),
        (NOTICE, "<5>NOTICE"),
        (logging.INFO, "<6>INFO"),
        (logging.DEBUG, "<7>DEBUG"),
    ],
)
def test_each_level_has_its_priority_in_the_journal(stderr: Stderr, level: int, prefix: str) -> None:
    log.set_up(5)
    logging.getLogger("x").log(level, "words")
    assert stderr.text() == f"{prefix} words\n"


@pytest.mark.parametrize(
    ("debug", "shown"),
    [
        (0, ["CRITICAL"]),
        (1, ["CRITICAL", "ERROR"]),
        (2, ["CRITICAL", "ERROR", "WARNING", "NOTICE"]),
        (3, ["CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO"]),
        (4, ["CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]),
        (5, ["CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]),
    ],
)
def test_good_news_are_shown_where_trouble_is(stderr: Stderr, debug: int, shown: list[str]) -> None:
    log.set_up(debug)
    for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, NOTICE, logging.INFO, logging.DEBUG):
        logging.getLogger("x").log(level, "words")
    assert [line.split()[0][3:] for line in stderr.lines()] == shown


@pytest.mark.parametrize(("stream", "terminal"), [(None, False), ("8:1", True)])
def test_elsewhere_a_line_has_a_time_and_no_priority(
    stderr: Stderr, monkeypatch: pytest.MonkeyPatch, stream: str | None, *, terminal: bool
) -> None:
    if stream is None:
        monkeypatch.delenv("JOURNAL_STREAM")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    log.set_up(2)
    logging.getLogger("x").warning("words")
    date, _, rest = stderr.text().partition(" ")
    assert date.count("-") == 2
    assert rest.endswith(" WARNING words\n")
    assert "<" not in rest


def test_an_error_of_this_program_is_one_line_with_the_calls_that_led_to_it(stderr: Stderr) -> None:
    def inner() -> None:
        raise KeyError("a\nb\x1b")

    log.set_up(2)
    try:
        try:
            inner()
        except KeyError as error:
            raise ValueError("<2>forged\r") from error
    except ValueError:
        logging.getLogger("x").exception("job 1")
    (line,) = stderr.lines()
    assert line.startswith(r"<3>ERROR job 1: ValueError: <2>forged\r (traceback: test_lines.py:")
    assert "because of KeyError" in line
    assert " inner < test_lines.py:" in line


def test_a_line_that_cannot_be_made_ends_nothing(stderr: Stderr) -> None:
    log.set_up(2)
    logging.getLogger("x").warning("%d jobs", "\x1b")
    (line,) = stderr.lines()
    assert line == r"<4>WARNING '%d jobs' with ('\x1b',): TypeError"


def test_errors_behind_errors_end() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 50):
        error, before = ValueError(str(number)), error
        error.__cause__ = before
    before.__context__ = error
    error.__cause__, error.__context__ = None, error
    assert describe_error(error).count("ValueError") <= 5


def test_what_ends_a_thread_is_a_line_too(stderr: Stderr) -> None:
    log.set_up(2)
    thread = threading.Thread(target=lambda: "".index("x"), name="some")
    thread.start()
    thread.join()
    (line,) = stderr.lines()
    assert line.startswith("<2>CRITICAL an error of this program in the thread some: ValueError")


def test_a_line_has_an_end(stderr: Stderr) -> None:
    lines.log_line("x" * (MAX_LOGGED + 7), lines.INFO)
    assert stderr.text() == f"<6>{'x' * MAX_LOGGED} ... (7 more characters)\n"


@pytest.mark.usefixtures("stderr")
def test_where_nobody_reads_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    log.set_up(2)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logging.getLogger("x").warning("words")
    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("x").warning("words")
    assert run_command(["-wrong"]) == 64


def test_what_ends_a_call_is_an_error_in_the_journal(stderr: Stderr) -> None:
    assert run_command(["-wro\x1bng\n"]) == 64
    assert stderr.text() == "<3>cc-slurm-adapter: -wro\\x1bng\\n: unknown flag; -help shows what there is\n"


HEAD = Path(hooks.__file__).with_name("head.sh")


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_half_a_file_fails_no_job_and_is_no_finding(tmp_path: Path, shell: str) -> None:
    """However much of its shell part has been copied: at least the first two lines."""
    head = HEAD.read_bytes()
    begin = head.index(b"\n", head.index(b"trap ")) + 1
    copy = tmp_path / "half"
    for cut in [*range(begin, head.rindex(b'main "$@"'), 97)]:
        copy.write_bytes(head[:cut])
        for environ, arguments, code in (({"SLURM_JOB_ID": "1"}, [], 0), ({}, ["-daemon"], 2)):
            try:
                done = subprocess.run([shell, copy, *arguments], env=environ, capture_output=True, check=False)
            except FileNotFoundError:
                pytest.skip(f"{shell} is not here")
            assert done.returncode == code, head[cut - 40 : cut]


def test_whoever_reads_only_the_beginning_gets_no_error_at_the_end() -> None:
    """As `cc-slurm-adapter -settings | head -1`."""
    words = [sys.executable, "-m", "cc_slurm_adapter", "-settings"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout and program.stderr
        program.stdout.readline()
        program.stdout.close()
        assert (program.stderr.read(), program.wait(60)) == (b"", 0)


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "cc_slurm_adapter", "-version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "cc-slurm-adapter: standard output cannot be written: No space left on device\n"


def test_what_the_encoding_of_the_terminal_lacks_is_printed_with_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stdout)
    lines.print_line("ä漢")
    assert stdout.buffer.getvalue() == b"\xe4\\u6f22\n"


def test_a_screen_is_written_as_it_is_until_nobody_reads_it() -> None:
    code = (
        "import sys; from cc_slurm_adapter.lines import terminal_size, write_screen\n"
        "assert terminal_size() == (0, 0)\n"
        "assert write_screen('\\x1b[31mone\\n')\n"
        "sys.stdin.readline()\n"
        "assert not write_screen('two\\n'); assert write_screen('into nothing')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(lines.__file__).parents[1])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"\x1b[31mone\n"
    process.stdout.close()
    process.stdin.write(b"\n")
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
