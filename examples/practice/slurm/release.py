"""What the commands of each Slurm release do in a way of their own, as far as the program meets it.

Each fact was recorded on a real cluster of that release (tests/recorded/slurm), which
tests/practice/test_releases.py compares.
The JSON formats v0.0.43 to 45 are not printed: the program asks each release for an older one.
"""

from __future__ import annotations

from typing import NamedTuple

PLAIN, V39, V40, V41, V42 = "plain", "v0.0.39", "v0.0.40", "v0.0.41", "v0.0.42"
PRINTED = (PLAIN, V39, V40, V41, V42)
"""The formats that the practice cluster prints."""
ALL, ONE, WANTED = "all jobs", "one id", "what is wanted"
"""Which jobs `squeue --json` prints: all in memory; all unless one id or one user is named; those asked for."""


class Release(NamedTuple):
    """A release. The defaults are those of 24.11.5."""

    version: str
    program: str = "slurm"
    """The name before the version: Debian calls its package slurm-wlm."""
    formats: tuple[str, ...] = ()
    """As --json=list prints them; none where --json takes no argument."""
    default: str = ""
    """The format of --json alone."""
    lists_on_stderr: bool = False
    silent: str = ""
    """A format that is listed, and prints nothing with exit status 0."""
    json_jobs: str = WANTED
    database_speaker: str = "_open_persist_conn"
    """Who complains that slurmdbd is away."""
    config_colon: str = ":"
    """What stands between `slurm_load_ctl_conf error` and the reason."""

    @property
    def names(self) -> tuple[str, str, str]:
        """Major, minor and micro version."""
        major, minor, micro = self.version.split(".")
        return major, minor, micro

    def is_before(self, version: str) -> bool:
        """Whether this release is older than another one, such as 24.11."""
        return self.version < version


_OLD_SPEAKER = "slurm_persist_conn_open_without_init"
_ALL = (
    Release("22.05.8", "slurm-wlm", default=PLAIN, json_jobs=ALL, database_speaker=_OLD_SPEAKER, config_colon=": "),
    Release("23.02.8", default=V39, json_jobs=ONE, database_speaker=_OLD_SPEAKER, config_colon=": "),
    Release(
        "23.11.11",
        formats=(V39, V40),
        default=V40,
        lists_on_stderr=True,
        silent=V39,
        json_jobs=ONE,
        database_speaker=_OLD_SPEAKER,
        config_colon=": ",
    ),
    Release("24.05.8", formats=(V39, V40, V41), default=V41, lists_on_stderr=True, config_colon=": "),
    Release("24.11.5", "slurm-wlm", formats=(V42, V40, V41), default=V42, config_colon=": "),
    Release("25.05.8", formats=("v0.0.43", V42, V40, V41), default="v0.0.43"),
    Release("25.11.7", formats=("v0.0.43", V42, V41, "v0.0.44"), default="v0.0.44"),
    Release("26.05.5", "slurm-wlm", formats=("v0.0.43", V42, "v0.0.45", "v0.0.44"), default="v0.0.45"),
)
RELEASES = {release.version: release for release in _ALL}


def release_of(version: str) -> Release:
    """The release of this version; ValueError for one that was never recorded."""
    if version not in RELEASES:
        raise ValueError(f"no Slurm {version} was recorded: the practice cluster can be {', '.join(RELEASES)}")
    return RELEASES[version]
