"""slurmInfo of very many jobs from one question: every text is its job's own, or is asked for by itself."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import CommandCancelled
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.slurm import bulk_texts as job_infos_module
from cc_slurm_adapter.slurm import texts as texts_module
from cc_slurm_adapter.slurm.bulk_texts import BulkTexts, read_job_infos
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from tests.fakes.programs import CountedCommands, FakePrograms, conversation
from tests.fakes.slurm_and_sinks import make_run
from tests.recorded.fixture_files import FIXTURES, VERSIONS

TEXT = "JobId={} JobName=a\n   UserId=bob(1001)\n   WorkDir=/home/bob"
END = "\n   \n\n"
"""Up to 25.05; later releases print no blanks between the two newlines."""


def key_of(job_id: int) -> RunKey:
    """The run that `make_run` makes."""
    return make_run(job_id).key


def keys_of(*job_ids: int) -> list[RunKey]:
    return [key_of(job_id) for job_id in job_ids]


def answer(*texts: str) -> bytes:
    """What scontrol prints for all jobs."""
    return "".join(text + END for text in texts).encode()


class Output:
    """In place of Commands: hands a given output on in pieces of a given size."""

    def __init__(self, output: bytes, size: int) -> None:
        self._pieces = [output[at : at + size] for at in range(0, len(output), size)]

    def read(self, folder: Path, job_ids: Collection[int]) -> BulkTexts:
        with (folder / "infos").open("w+b") as file:
            writer = job_infos_module._Writer(file, frozenset(job_ids))
            for piece in self._pieces:
                writer.feed(piece)
            writer.finish()
        return BulkTexts((folder / "infos").open("rb"), writer.places, {key_of(job_id) for job_id in job_ids})


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 18, 50, 1000])
def test_each_job_has_its_own_text_however_the_output_is_cut(tmp_path: Path, size: int) -> None:
    texts = {job_id: TEXT.format(job_id) for job_id in (1, 77, 4294967295)}
    infos = Output(answer(*texts.values()), size).read(tmp_path, texts)
    assert {job_id: infos.get(key_of(job_id)) for job_id in texts} == texts
    infos.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recorded_texts_of_each_release_are_told_apart(tmp_path: Path, version: str) -> None:
    files = sorted((FIXTURES / f"slurm-{version}/jobs").glob("*/running.scontrol.txt"))
    found = {int(text.split(" ")[0][len("JobId=") :]): text for text in (file.read_text() for file in files)}
    single = {job_id: text for job_id, text in found.items() if text.count("\nJobId=") == 0}
    assert len(single) > 10
    infos = Output("".join(single.values()).encode(), 500).read(tmp_path, single)
    assert {job_id: infos.get(key_of(job_id)) for job_id in single} == {
        job_id: text.rstrip() for job_id, text in single.items()
    }
    infos.close()


def test_what_was_not_asked_for_or_is_not_there_has_no_text(tmp_path: Path) -> None:
    infos = Output(answer(TEXT.format(1), TEXT.format(2)), 10).read(tmp_path, [2, 3])
    assert [infos.get(key_of(job_id)) is None for job_id in (1, 2, 3)] == [True, False, True]
    infos.close()


def test_a_job_that_another_one_imitates_is_asked_for_by_itself(tmp_path: Path) -> None:
    forging = f"{TEXT.format(1)}\n   Comment=x{END}{TEXT.format(2)} forged\nJobId=3 forged"
    infos = Output(answer(forging, TEXT.format(2), TEXT.format(3), TEXT.format(4)), 20).read(tmp_path, [1, 2, 3, 4])
    assert infos.get(key_of(2)) is None
    assert infos.get(key_of(3)) is None
    assert infos.get(key_of(4)) == TEXT.format(4)
    assert "forged" not in (infos.get(key_of(1)) or "")
    infos.close()


@given(st.lists(st.text(max_size=60) | st.sampled_from(["\nJobId=2 x", "\n\nJobId=1 y", "JobId=3 "]), max_size=6))
def test_no_job_gets_what_another_user_wrote(tmp_path_factory: pytest.TempPathFactory, written: list[str]) -> None:
    folder = tmp_path_factory.mktemp("infos")
    ids = range(1, len(written) + 1)
    texts = {job_id: f"JobId={job_id} JobName=a\n   Comment={text}" for job_id, text in zip(ids, written)}
    infos = Output("".join(text + END for text in texts.values()).encode(), 13).read(folder, ids)
    for job_id, text in texts.items():
        found = infos.get(key_of(job_id))
        assert found is None or text.startswith(found)
    infos.close()


def fake_scontrol(programs: FakePrograms, folder: Path, *texts: str) -> None:
    """Answers for all jobs, and notes what else it is asked; each answer has its question in its first line."""
    (folder / "all").write_bytes(answer(*texts))
    programs.make(
        "scontrol",
        f'case "$*" in "--all show job") exec cat {folder}/all ;; esac\n'
        + conversation(f'echo "$line" >> {folder}/asked; echo "JobId=$3 by itself"'),
    )


@pytest.fixture
def client(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmClient:
    monkeypatch.setattr(texts_module, "MANY", 2)
    return SlurmClient(commands, "lab", str(tmp_path), 0)


def infos_of(client: SlurmClient, job_ids: Iterable[int]) -> list[str]:
    """What `with_texts` finds."""
    return [run.slurm_info for run in client.with_texts([make_run(job_id) for job_id in job_ids])]


def test_many_texts_take_one_query_and_what_is_missing_one_more(
    client: SlurmClient, commands: CountedCommands, programs: FakePrograms, tmp_path: Path
) -> None:
    fake_scontrol(programs, tmp_path, TEXT.format(1), TEXT.format(2), TEXT.format(2))
    with client.prefetch_job_info(keys_of(1, 2, 3), 3):
        assert infos_of(client, [1]) == [TEXT.format(1)]
        assert commands.started == 1
        assert infos_of(client, [1, 2, 3]) == [TEXT.format(1), "JobId=2 by itself", "JobId=3 by itself"]
        assert commands.started == 2
    assert infos_of(client, [1]) == ["JobId=1 by itself"]
    assert re.findall(r"show job (\d+)", (tmp_path / "asked").read_text()) == ["2", "3", "1"]
    assert {path.name for path in tmp_path.iterdir()} == {"all", "asked", programs.folder.name}


@pytest.mark.parametrize(
    ("wanted", "listed", "asked"),
    [(1, 1, 0), (2, 40, 1), (2, 41, 0), (1000, 20_000, 1), (2, 2, 1), (20_002, 20_001, 0)],
)
def test_all_are_asked_for_at_once_where_that_costs_less(
    client: SlurmClient, commands: CountedCommands, programs: FakePrograms, wanted: int, listed: int, asked: int
) -> None:
    programs.make("scontrol", "exit 0")
    with client.prefetch_job_info(keys_of(*range(1, wanted + 1)), listed):
        assert commands.started == asked


def test_a_later_run_of_a_job_is_asked_for_by_itself(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    fake_scontrol(programs, tmp_path, TEXT.format(1), TEXT.format(2))
    with client.prefetch_job_info(keys_of(1, 2), 2):
        later = make_run(1, start=make_run(1).key.start_time + 60)
        assert [run.slurm_info for run in client.with_texts([later, make_run(2)])] == [
            "JobId=1 by itself",
            TEXT.format(2),
        ]


def test_what_fails_costs_only_time(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_scontrol(programs, tmp_path)
    programs.make(
        "scontrol",
        'case "$*" in "--all show job") echo "JobId=1 half"; echo "out of memory" >&2; exit 1 ;; esac\n'
        + conversation('echo "JobId=$3 by itself"'),
    )
    with client.prefetch_job_info(keys_of(1, 2), 2):
        assert infos_of(client, [1, 2]) == ["JobId=1 by itself", "JobId=2 by itself"]
    assert "asked for job by job" in caplog.text
    assert "out of memory" in caplog.text


def test_a_stop_is_no_failure_of_the_query(commands: Commands, tmp_path: Path) -> None:
    commands.cancel()
    with pytest.raises(CommandCancelled):
        read_job_infos(commands, str(tmp_path), keys_of(1))


class Full(io.RawIOBase):
    """A file on a disk with little room."""

    def __init__(self, room: int) -> None:
        self._room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written, self._room = min(len(data), self._room), self._room - min(len(data), self._room)
        if not written:
            raise OSError(28, "No space left on device")
        return written


@pytest.mark.parametrize("room", [-1, 0, 10])
def test_without_room_each_is_asked_for_by_itself(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    fake_scontrol(programs, tmp_path, TEXT.format(1), TEXT.format(2))

    def full(*_: object, **__: object) -> Full:
        if room < 0:
            raise OSError(28, "No space left on device")
        return Full(room)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with client.prefetch_job_info(keys_of(1, 2), 2):
        assert infos_of(client, [1, 2]) == ["JobId=1 by itself", "JobId=2 by itself"]


def test_without_a_folder_no_file_is_made(
    commands: CountedCommands, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("no file is to be made, and no folder to be looked for")

    fake_scontrol(programs, tmp_path, TEXT.format(1), TEXT.format(2))
    for name in ("TemporaryFile", "gettempdir"):
        monkeypatch.setattr(tempfile, name, refuse)
    found = read_job_infos(commands, "", keys_of(1, 2))
    assert found is not None
    assert [found.get(key_of(job_id)) for job_id in (1, 2)] == [TEXT.format(1), TEXT.format(2)]
    found.close()


def test_an_answer_of_very_many_waiting_jobs_is_not_kept(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_scontrol(programs, tmp_path, TEXT.format(1), TEXT.format(2))
    monkeypatch.setattr(job_infos_module, "MAX_BYTES", 100)
    with client.prefetch_job_info(keys_of(1, 2), 2):
        assert infos_of(client, [1, 2]) == ["JobId=1 by itself", "JobId=2 by itself"]
