"""Every error this program raises on purpose, in one tree.

Foreign exceptions (OSError, sqlite3.Error, asyncio.TimeoutError ...) are translated
into these at the module where the effect happens, and nowhere else.
"""

from __future__ import annotations


class AdapterError(Exception):
    """An error that an administrator can act on; its text is one line and says what to do next."""


class UsageError(AdapterError):
    """The command line is wrong."""


class ConfigError(AdapterError):
    """The configuration cannot be used. `problems` holds one line for each thing that is wrong.

    `warnings` are what was found beside that: no reason to refuse it, but what to correct as well.
    """

    def __init__(self, problems: list[str], warnings: list[str] | tuple[str, ...] = ()) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.warnings = tuple(warnings)


class UnreadableFile(ConfigError):
    """A file that the configuration names cannot be read, or holds no secret: it may be repaired or appear later."""


class BrokenJson(ConfigError):
    """The configuration is no JSON. The attributes are those of json.JSONDecodeError."""

    def __init__(self, text: str, offset: int, message: str) -> None:
        line, column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
        super().__init__([f"not valid JSON: line {line} column {column}: {message}"])
        self.text, self.offset, self.message = text, offset, message


class MissingFile(ConfigError):
    """There is no configuration file of that name."""


class ForbiddenFile(ConfigError):
    """The configuration file may not be read by this user: root may."""


class OutputError(AdapterError):
    """What was asked for cannot be printed."""


class StateError(AdapterError):
    """The pid file, the state folder, the database or the socket cannot be used."""


class NoRoom(StateError):
    """Too many messages wait for more to be made now. That is no failure: what is to be read stays where it is."""


class ThreadFault(AdapterError):
    """A thread has ended or is stuck: only a new process helps."""


class UnderWay(StateError):
    """Another request of the kind is not done yet."""


class NotRunning(StateError):
    """No daemon answers on the control socket."""


class NotAllowed(StateError):
    """This user may not ask the daemon."""


class AlreadyRunning(StateError):
    """Another daemon holds the pid file's lock."""

    def __init__(self, text: str, pid: str) -> None:
        super().__init__(text)
        self.pid = pid


class SlurmError(AdapterError):
    """A query to Slurm has no usable result: nothing may be concluded from it."""


class CommandMissing(SlurmError):
    """A Slurm command is not in PATH."""


class CommandFailed(SlurmError):
    """A Slurm command exited non-zero, took too long or printed too much."""


class CommandCancelled(SlurmError):
    """The daemon stops, so the command was ended."""


class UnexpectedOutput(SlurmError):
    """Slurm's output does not have the form that this program knows; `path` is the place that does not fit."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class NoConversation(SlurmError):
    """scontrol does not read commands from standard input as it would from a pipe."""

    def __init__(self) -> None:
        super().__init__(
            "scontrol does not answer commands on its standard input as over a pipe: where it is a wrapper, that must"
            " pass standard input on and give it no terminal (docker exec -i, ssh -T)"
        )


class SinkError(AdapterError):
    """A request to a destination has no response (refused, reset, timed out, closed)."""


class TokenRefused(SinkError):
    """cc-backend refuses the token."""


class BrokenOff(SinkError):
    """The connection was broken off while a message was on its way. The message may be too large for a receiver."""
