"""Reads the configuration file.

Hooks read their few settings with this module. So it imports nothing that is slow to load: no dataclasses, no typing,
and json only where json's own parser finds no value.
"""

from __future__ import annotations

import os
import sys
from _collections_abc import Callable

from cc_slurm_adapter.errors import BrokenJson, ConfigError

DEFAULT_CONFIG_PATH = "/etc/cc-slurm-adapter/config.json"
DEFAULT_SOCKET_PATH = "/run/cc-slurm-adapter/daemon.sock"
DEFAULT_LAST_RUN_PATH = "/var/lib/cc-slurm-adapter/lastrun"
DEFAULT_EVENTS_PATH = "/run/cc-slurm-adapter/events"
"""In memory, so that no hook waits for a disk. The shell part knows this path, too."""

MAX_CONFIG_BYTES = 4 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITE_SPACE = " \t\n\r"
"""Of JSON."""

_ToObject = Callable[["list[tuple[str, object]]"], "dict[str, object]"]


class ConfigFile:
    """The settings of one file as they were written.

    `entries` maps a key in lower case to (the key as written, its value). A null is left out, because it means the
    default. `repeated` names the keys that occur twice, and `mode` is the file's st_mode.
    """

    def __init__(self, entries: dict[str, tuple[str, object]], repeated: list[str], mode: int = 0) -> None:
        self.entries = entries
        self.repeated = repeated
        self.mode = mode

    def get(self, key: str) -> object:
        """Return the value of a key, in upper or lower case; None if it is not set."""
        return self.entries.get(key.lower(), (key, None))[1]


def read_config_file(path: str) -> ConfigFile:
    """Read the file. Raises OSError if it cannot be read, ConfigError if it is not a JSON object."""
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError([f"the file is longer than {MAX_CONFIG_BYTES} bytes, so this is not a configuration"])
    parsed = parse_config_text(data)
    parsed.mode = mode
    return parsed


def parse_config_text(data: bytes) -> ConfigFile:
    """Parse the settings from JSON text (UTF-8; a byte order mark is allowed). Raises ConfigError.

    It is BrokenJson if the text is no JSON: commands say more about that (`json_mistake`), which hooks do not load.
    """
    repeated: list[str] = []

    def to_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        known: dict[str, object] = {}
        for key, value in pairs:
            if key in known:
                repeated.append(key)
            known[key] = value
        return known

    text = _decode(data)
    document = _scan(text, to_object)
    if document is None:
        repeated.clear()
        document = _load(text, to_object)
    if not isinstance(document, dict):
        raise ConfigError(["expected a JSON object: { ... } with one entry for each setting"])
    return _fold_case(document, repeated)


def _decode(data: bytes) -> str:
    """Return what the codec utf-8-sig does, which would have to be loaded. Raises ConfigError."""
    try:
        return data[len(_BYTE_ORDER_MARK) :].decode() if data.startswith(_BYTE_ORDER_MARK) else data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError([f"the file is not UTF-8 text (byte {error.start})"]) from None


class _Rules:
    """What json.loads tells its parser, if it gets nothing but `object_pairs_hook`."""

    strict = True
    object_hook = None
    parse_float, parse_int = float, int
    parse_constant = float

    def __init__(self, object_pairs_hook: _ToObject) -> None:
        self.object_pairs_hook = object_pairs_hook


def _scan(text: str, to_object: _ToObject) -> object:
    """Return the value of a text that json's parser, which is written in C, reads to its end; else None.

    So a hook need not load the module json, which takes as long as all the rest. That adds to the parser only the
    white space around the value and the words about a mistake. Without it, the parser of Python 3.10 and 3.11 finds no
    class for its error: that is a SystemError, and the end of the process where Python was built to be debugged.
    """
    if hasattr(sys, "gettotalrefcount"):  # built to be debugged
        return None
    try:
        from _json import make_scanner  # noqa: PLC0415 - there are Pythons without it

        stripped = text.strip(_WHITE_SPACE)
        # It asks for the attributes of a JSONDecoder, and for no more of it.
        value, end = make_scanner(_Rules(to_object))(stripped, 0)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - what is wrong, if anything, json says
        return None
    return value if end == len(stripped) else None


def _load(text: str, to_object: _ToObject) -> object:
    """Return the value of a text. Raises ConfigError, which is BrokenJson if the text is no JSON."""
    import json  # noqa: PLC0415 - slow to load

    try:
        return json.loads(text, object_pairs_hook=to_object)
    except json.JSONDecodeError as error:
        raise BrokenJson(error.doc, error.pos, error.msg) from None
    except (ValueError, RecursionError):
        raise ConfigError(["not usable as JSON: nested too deeply or with a number of too many digits"]) from None


def _fold_case(document: dict[str, object], repeated: list[str]) -> ConfigFile:
    entries: dict[str, tuple[str, object]] = {}
    for key, value in document.items():
        if key.lower() in entries:
            repeated.append(key)
        if value is not None:
            entries[key.lower()] = (key, value)
    return ConfigFile(entries, repeated)


def beside(path: str, name: str) -> str:
    """Return the path of a name in the same folder as a file. Beside lastRunPath that is the state folder."""
    return os.path.join(os.path.dirname(path), name)


def former_events_paths(last_run_path: str) -> tuple[str, ...]:
    """Return where events were left by default before `DEFAULT_EVENTS_PATH` existed."""
    both = (last_run_path, DEFAULT_LAST_RUN_PATH)
    return tuple(dict.fromkeys(os.path.normpath(beside(path, "events")) for path in both))


def events_path(configured: str, last_run_path: str) -> str:
    """Return where hooks leave events. A former default counts as not configured."""
    path = os.path.normpath(configured) if configured else DEFAULT_EVENTS_PATH
    return DEFAULT_EVENTS_PATH if path in former_events_paths(last_run_path) else path
