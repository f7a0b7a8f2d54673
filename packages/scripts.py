"""The maintainer's scripts of both formats: the same functions of scripts.sh, and what each format calls of them."""

from __future__ import annotations

from pathlib import Path

FUNCTIONS = Path(__file__).with_name("scripts.sh")

DEB = {
    "postinst": """\
case $1 in
    configure) if [ -n "$2" ]; then upgraded; else first_installed; fi ;;
esac
""",
    "prerm": """\
case $1 in
    remove)
        if ! is_free_of_hooks && [ "$CC_SLURM_ADAPTER_REMOVE" != yes ]; then
            warn "nothing was removed. To remove it all the same:" \
                "CC_SLURM_ADAPTER_REMOVE=yes dpkg --remove cc-slurm-adapter"
            exit 1
        fi
        stop_and_disable
        ;;
esac
""",
    "postrm": """\
case $1 in
    remove) removed ;;
    purge) purged ;;
esac
""",
}
"""By what dpkg calls them with (deb-postinst(5), deb-prerm(5), deb-postrm(5)). All else needs nothing to be done."""

RPM = {
    "post": """\
if [ "$1" -gt 1 ]; then upgraded; else first_installed; fi
exit 0
""",
    "preun": """\
if [ "$1" -eq 0 ]; then
    is_free_of_hooks || :
    stop_and_disable
fi
exit 0
""",
    "postun": """\
if [ "$1" -eq 0 ]; then
    rmdir /etc/cc-slurm-adapter 2> /dev/null || :
    removed
fi
exit 0
""",
}
"""By what rpm calls them with: how many of the package there are afterwards."""


def deb_scripts() -> dict[str, str]:
    """Return the scripts of the .deb, which end with the first command that fails."""
    return {name: _script("#!/bin/sh\nset -e\n", calls) for name, calls in DEB.items()}


def rpm_scripts() -> dict[str, str]:
    """Return the scripts of the .rpm. They never fail: rpm would leave half of two versions."""
    return {name: _script("", calls) for name, calls in RPM.items()}


def _script(head: str, calls: str) -> str:
    return "\n".join([head, FUNCTIONS.read_text(encoding="utf-8"), calls])
