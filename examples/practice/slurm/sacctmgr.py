"""The stand-in for sacctmgr: it shows users with their rights, and the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from examples.practice.slurm.call import Call, CommandError, Option, database_is_down, parse_options, print_version

OPTIONS = (
    Option("noheader", "n"),
    Option("parsable2", "P"),
    Option("version", "V"),
)


def main(call: Call) -> int:
    """Run sacctmgr and return its exit status."""
    options, words = parse_options(call, OPTIONS)
    if "version" in options:
        return print_version(call)
    if not {"noheader", "parsable2"} <= set(options) or [word.lower() for word in words[:1]] != ["show"]:
        raise CommandError("sacctmgr: error: only `sacctmgr -nP show user|cluster` is known here")
    entity = words[1].lower() if len(words) > 1 else ""
    if call.store.is_down("slurmdbd"):
        raise CommandError(database_is_down(call))
    if entity not in SHOWN:
        raise CommandError("No valid entity in list command")
    names, fields = _parse_conditions(words[2:], entity)
    for row in SHOWN[entity](call, names):
        call.out.write("|".join(row[field] for field in fields) + "\n")
    return 0


def _parse_conditions(words: Sequence[str], entity: str) -> tuple[list[str], list[str]]:
    """Names to show (none: all) and fields."""
    names: list[str] = []
    fields = ["user", "defaultaccount", "adminlevel"] if entity == "user" else ["cluster"]
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            names += word.split(",")
        elif key.lower() == "format":
            fields = value.lower().split(",")
        elif key.lower() in ("name", "names", entity):
            names += value.split(",")
        else:
            raise CommandError(f" Unknown condition: {word}")
    known = {"user": ("user", "adminlevel", "defaultaccount"), "cluster": ("cluster",)}[entity]
    for field in fields:
        if field not in known:
            raise CommandError(f"Unknown field '{field}'")
    return names, fields


def _users(call: Call, names: Sequence[str]) -> list[Mapping[str, str]]:
    return [
        {"user": user, "adminlevel": level, "defaultaccount": user}
        for user, level in sorted(call.settings().admin_levels)
        if not names or user in names
    ]


def _clusters(call: Call, names: Sequence[str]) -> list[Mapping[str, str]]:
    cluster = call.settings().cluster
    return [{"cluster": cluster}] if not names or cluster in names else []


SHOWN: dict[str, Callable[[Call, Sequence[str]], list[Mapping[str, str]]]] = {
    "user": _users,
    "cluster": _clusters,
}
