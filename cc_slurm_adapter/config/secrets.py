"""Files that hold one secret each, and texts that may contain one.

Each hook call that needs Python loads this module, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import os

from cc_slurm_adapter.errors import UnreadableFile

MIN_SECRET = 16
"""Fewest bytes of a shared secret."""
MAX_SECRET_BYTES = 64 * 1024


def secret_path(name: str) -> str:
    """Return the path of a secret. A relative name is looked up among systemd's credentials, if there are any."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return os.path.join(folder, name) if folder else name


def read_secret_file(key: str, name: str) -> str:
    """Return the text of a secret's file without white space around it. `key` names the setting in errors.

    Raises UnreadableFile, also if the file is empty, too long or not ASCII text.
    """
    path = secret_path(name)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UnreadableFile([f"{key}: cannot read {presentable(path)}: {reason(error)}"]) from None
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise UnreadableFile([f"{key}: {path} is empty, expected the secret in it"])
    if len(data) > MAX_SECRET_BYTES or not text.isascii():
        raise UnreadableFile([f"{key}: {path} does not contain exactly one secret in ASCII text"])
    return text


def presentable(text: str) -> str:
    """Return the text for an error message. A text that may be or contain a secret is not shown."""
    import re  # noqa: PLC0415 - slow to load, and only errors need it

    suspicious = (
        r"eyJ[\w-]{8,}|[0-9A-Fa-f]{32,}|[A-Z2-7]{40,}|(?=[\w+-]*[0-9])(?=[\w+-]*[A-Z])(?=[\w+-]*[a-z])[\w+-]{32,}"
    )
    if "@" in text or "?" in text or re.search(suspicious, text):
        return "a text that may contain a secret"
    return text


def reason(error: Exception) -> str:
    """Return why a file could not be used, without its path and error number."""
    return getattr(error, "strerror", None) or str(error)


def read_secret(name: str) -> bytes:
    """Return the shared secret in prepSecretFile. Raises UnreadableFile."""
    secret = read_secret_file("prepSecretFile", name).encode()
    if len(secret) < MIN_SECRET:
        raise UnreadableFile(
            [f"prepSecretFile: {name} contains fewer than {MIN_SECRET} characters, which is too short"]
        )
    return secret
