"""One call of a command: its arguments, its environment, where it prints, and how it fails."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from examples.practice.slurm.model import Settings
from examples.practice.slurm.release import PLAIN, PRINTED, V39, Release, release_of
from examples.practice.slurm.store import Store

CONTROLLER_DOWN = "Unable to contact slurm controller (connect failure)"
UNKNOWN_JOB = "Invalid job id specified"
FLAG, VALUE, OPTIONAL = "flag", "value", "optional"


class CommandError(Exception):
    """Ends a command. The text goes to standard error as it is, with `status` as exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class SilentEnd(CommandError):
    """Ends a command that says nothing and calls it a success."""

    def __init__(self) -> None:
        super().__init__("", 0)


class Option(NamedTuple):
    """One option; `short` may be ''."""

    long: str
    short: str
    kind: str = FLAG


class Call(NamedTuple):
    """All that a command needs to know of its surroundings."""

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    store: Store
    now: float
    stdin: TextIO
    out: TextIO
    err: TextIO

    def settings(self) -> Settings:
        return self.store.settings()

    def release(self) -> Release:
        return release_of(self.settings().release)

    def complain(self, text: str) -> None:
        self.err.write(text + "\n")


def parse_options(call: Call, options: Sequence[Option]) -> tuple[dict[str, str], list[str]]:
    """Split arguments as GNU getopt does: options by their long names (flags as '1'), and the rest."""
    by_long = {option.long: option for option in options}
    by_short = {option.short: option for option in options if option.short}
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(call.arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return found, rest + waiting
        if word.startswith("--"):
            _parse_long(call, word, waiting, by_long, found)
        elif word.startswith("-") and len(word) > 1:
            _parse_short(call, word[1:], waiting, by_short, found)
        else:
            rest.append(word)
    return found, rest


def _parse_long(call: Call, word: str, waiting: list[str], by_long: dict[str, Option], found: dict[str, str]) -> None:
    name, has_value, value = word[2:].partition("=")
    option = by_long.get(name)
    if option is None:
        raise _usage(call, f"unrecognized option '{word}'")
    if option.kind == VALUE and not has_value:
        if not waiting:
            raise _usage(call, f"option '--{name}' requires an argument")
        value = waiting.pop(0)
    found[name] = "1" if option.kind == FLAG else value


def _parse_short(
    call: Call, letters: str, waiting: list[str], by_short: dict[str, Option], found: dict[str, str]
) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        option = by_short.get(letter)
        if option is None:
            raise _usage(call, f"invalid option -- '{letter}'")
        if option.kind == FLAG:
            found[option.long] = "1"
            continue
        if not letters and not waiting:
            raise _usage(call, f"option requires an argument -- '{letter}'")
        found[option.long] = letters or waiting.pop(0)
        return


def _usage(call: Call, problem: str) -> CommandError:
    hint = "" if call.name == "sacct" else f'\nTry "{call.name} --help" for more information'
    return CommandError(f"{call.name}: {problem}{hint}")


def json_format(call: Call, wanted: str, *, status: int = 1) -> str:
    """The format that --json, or --json=WANTED, asked for; one that there is not ends the command."""
    release = call.release()
    if wanted and not release.formats:
        raise _usage(call, "option '--json' doesn't allow an argument")
    found = wanted or release.default
    if wanted and found not in release.formats:
        raise CommandError(
            f"{call.name}: error: load_plugins: unable to find plugin: data_parser/{found}\n"
            f"{call.name}: error: data_parser_g_new: failure loading plugins: "
            "Plugin has invalid format or unable to be loaded\n"
            f"{call.name}: error: application/json output not supported by data_parser/{release.default}",
            status,
        )
    if found == release.silent:
        raise SilentEnd
    return found


def list_json_formats(call: Call) -> int:
    """Answer --json=list."""
    release = call.release()
    if not release.formats:
        raise _usage(call, "option '--json' doesn't allow an argument")
    lines = [f"data_parser/{name}" for name in release.formats]
    if release.lists_on_stderr:
        for line in ["Possible data_parser plugins:", *lines]:
            call.complain(f"{call.name}: {line}")
    else:
        call.complain("Possible data_parser plugins:")
        call.out.writelines(f"{line}\n" for line in lines)
    return 0


def print_version(call: Call) -> int:
    """Answer --version."""
    release = call.release()
    call.out.write(f"{release.program} {release.version}\n")
    return 0


def require_controller(call: Call, speaker: str, colon: str = ": ") -> None:
    """End the command with slurmctld's absence in the words of `speaker`."""
    if call.store.is_down("slurmctld"):
        raise CommandError(f"{speaker}{colon}{CONTROLLER_DOWN}")


def database_is_down(call: Call) -> str:
    """What sacct and sacctmgr say first when slurmdbd is away."""
    return (
        f"{call.name}: error: {call.release().database_speaker}: failed to open persistent connection to "
        "host:localhost:15998: Connection refused\n"
        f"{call.name}: error: Sending PersistInit msg: Connection refused"
    )


def print_json(
    call: Call, document: Mapping[str, Any], version: str, command: Sequence[str], warnings: Sequence[str] = ()
) -> None:
    """Print a document, with what all of Slurm's documents have in common.

    As Slurm does it each value of a job has its own line, for whoever reads a large document piece by piece. Below that
    nothing is indented, which is twenty times faster.
    """
    if document["jobs"] and version not in PRINTED:
        raise CommandError(f"{call.name}: this practice cluster prints no job in {version}", 2)
    document = _framed(call, document, version, command, warnings)
    parts = ",\n".join(f'  "{key}": {_lay_out(value)}' for key, value in document.items())
    call.out.write(f"{{\n{parts}\n}}\n")


def _framed(
    call: Call, document: Mapping[str, Any], version: str, command: Sequence[str], warnings: Sequence[str]
) -> dict[str, Any]:
    """The whole document, its parts in the order of the format and, for v0.0.39, of the release."""
    jobs, errors = {"jobs": document["jobs"]}, {"errors": document.get("errors", [])}
    if version == PLAIN:
        return {"meta": _meta_of_22_05(call), **errors, **jobs}
    told = {"warnings": [{"description": warning, "source": ""} for warning in warnings]}
    if version != V39:
        others = {key: value for key, value in document.items() if key != "errors"}
        return {**others, "meta": _meta(call, f"data_parser/{version}", command), **errors, **told}
    if call.release().is_before("23.11"):
        told = {"warnings": [{"description": warning, "data_type": "0x83"} for warning in warnings]}
        return {"meta": _meta_of_23_02(call, command), **jobs, **told, **errors}
    return {**jobs, "meta": _meta(call, version, command), **told, **errors}


def _lay_out(value: object) -> str:
    """A value of the document; objects in a list stand at the depth at which Slurm writes them."""
    if not isinstance(value, list) or not value:
        return _in_json(value)
    return "[\n" + ",\n".join(_lay_out_object(each) for each in value) + "\n  ]"


def _lay_out_object(value: Mapping[str, object]) -> str:
    lines = ",\n".join(f'      "{key}": {_in_json(each)}' for key, each in value.items())
    return f"    {{\n{lines}\n    }}"


def _in_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("/", "\\/")


def _meta(call: Call, parser: str, command: Sequence[str]) -> dict[str, Any]:
    major, minor, micro = call.release().names
    return {
        "plugin": {
            "type": "",
            "name": "",
            "data_parser": parser,
            "accounting_storage": "accounting_storage/slurmdbd",
        },
        "client": {
            "source": "",
            "user": user_name(os.getuid()),
            "group": group_name(os.getgid()),
        },
        "command": list(command),
        "slurm": {
            "version": {"major": major, "micro": micro, "minor": minor},
            "release": call.release().version,
            "cluster": call.settings().cluster,
        },
    }


def _meta_of_23_02(call: Call, command: Sequence[str]) -> dict[str, Any]:
    plugins = {"data_parser": f"data_parser/{V39}", "accounting_storage": "accounting_storage/slurmdbd"}
    return {"plugins": plugins, "command": list(command), "Slurm": _version_in_numbers(call)}


def _meta_of_22_05(call: Call) -> dict[str, Any]:
    kind, title = ("dbv0.0.38", "DB v0.0.38") if call.name == "sacct" else ("v0.0.38", "v0.0.38")
    return {
        "plugin": {"type": f"openapi/{kind}", "name": f"Slurm OpenAPI {title}"},
        "Slurm": _version_in_numbers(call),
    }


def _version_in_numbers(call: Call) -> dict[str, Any]:
    major, minor, micro = map(int, call.release().names)
    version = {"major": major, "micro": micro, "minor": minor}
    return {"version": version, "release": call.release().version}


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
