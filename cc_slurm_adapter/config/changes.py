"""What differs between two configurations: what a reload puts in force, and what needs a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.keys import SETTINGS, Setting

OF_REST, OF_NATS = "ccRest", "nats"
TOGETHER = (OF_REST, OF_NATS)
"""Keys that begin with the same of these words are about one destination. If one of them needs a restart, all wait for
it: a new token must not be sent to the old address."""
WITH = {"gpuPciAddrs": "acceleratorGres"}
"""Keys whose values are written for the value of another key, which needs a restart."""


class Changes(NamedTuple):
    """The keys whose values differ, in the order of the table."""

    in_force: tuple[str, ...]
    """Those that a reload puts in force."""
    need_restart: tuple[str, ...]
    """Those that need a restart, or wait for another key that does."""


def compare(old: Config, new: Config) -> Changes:
    """Compare the configuration in force with another one, key by key."""
    changed = [setting for setting in SETTINGS if getattr(old, setting.field) != getattr(new, setting.field)]
    blocked = {word for setting in changed if not setting.reload for word in (setting.key, _word(setting))}
    waiting = [setting for setting in changed if not setting.reload or _waits(setting, blocked)]
    return Changes(
        tuple(setting.key for setting in changed if setting not in waiting),
        tuple(setting.key for setting in waiting),
    )


def _word(setting: Setting) -> str:
    """Return which of `TOGETHER` a key begins with, or the key itself."""
    return next((word for word in TOGETHER if setting.key.startswith(word)), setting.key)


def _waits(setting: Setting, blocked: set[str]) -> bool:
    return _word(setting) in blocked or WITH.get(setting.key) in blocked


def merge(old: Config, new: Config, changes: Changes) -> Config:
    """Return the old configuration with the values of those keys that a reload puts in force."""
    fields = {setting.field: getattr(new, setting.field) for setting in SETTINGS if setting.key in changes.in_force}
    return replace(old, **fields)
