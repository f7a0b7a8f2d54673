"""A zsh on a terminal of its own, which says what it offers at a key press."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import time
from pathlib import Path

from tests.project.other_programs import Zsh

LIMIT = 60.0
"""Seconds for the start, and for what a key press offers."""
END = "-- end --"
RC = """\
module_path=({modules} $module_path)
fpath=({completion} {functions} $fpath)
PS1= RPS1=
unsetopt BEEP
autoload -Uz compinit
compinit -u -d {folder}/dump
# What is offered goes through this builtin; where it only answers a question of a function, it offers nothing.
compadd() {{
    if [[ ${{@[1,(i)(-|--)]}} != *-(O|A|D)\\ * ]]; then
        local -a offered
        builtin compadd -A offered "$@"
        print -rl -- $offered >> {folder}/offered
    fi
    builtin compadd "$@"
}}
press() {{
    zle complete-word
    print -r -- '{end}' >> {folder}/offered
}}
zle -N press
bindkey '^I' press
print -r -- "${{_comps[cc-slurm-adapter]}}" > {folder}/made-by
"""


class ZshSession:
    """Ends with `close`."""

    def __init__(self, zsh: Zsh, completion: Path, folder: Path) -> None:
        self._folder = folder
        lists = {name: " ".join(map(str, getattr(zsh, name))) for name in ("modules", "functions")}
        rc = RC.format(**lists, completion=completion, folder=folder, end=END)
        (folder / ".zshrc").write_text(rc, encoding="utf-8")
        self._terminal, other_end = pty.openpty()
        self._process = subprocess.Popen(
            [zsh.program, "-d", "-i"],
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "ZDOTDIR": str(folder), "TERM": "vt100", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        os.close(other_end)
        os.set_blocking(self._terminal, False)

    def completed_by(self) -> str:
        """The function that completes the words of the program."""
        return self._wait_for("made-by", "\n").strip()

    def offered(self, typed: str) -> list[str]:
        """What is offered if the tabulator is pressed after these characters."""
        (self._folder / "offered").unlink(missing_ok=True)
        self._type(f"\x15{typed}\t")
        lines = self._wait_for("offered", f"{END}\n").splitlines()
        return [line for line in lines if line not in ("", END)]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(LIMIT)
        os.close(self._terminal)

    def _type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _wait_for(self, name: str, end: str) -> str:
        deadline = time.monotonic() + LIMIT
        shown = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                shown += os.read(self._terminal, 65536).decode(errors="replace")
            with contextlib.suppress(FileNotFoundError):
                text = (self._folder / name).read_text(encoding="utf-8")
                if text.endswith(end):
                    return text
            time.sleep(0.02)
        raise AssertionError(f"zsh shows: {shown}")
