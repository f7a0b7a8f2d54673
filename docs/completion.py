"""Makes the completion of flags and values for bash and zsh: `python3 docs/completion.py FOLDER`.

It is made from the tables of commands and flags. All that it offers is written in it, so that no key press asks Slurm
or the daemon, or starts this program.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.command_table import PROGRAM, VALUES, Call, Flag, calls, commands, flags, is_accepted_anywhere, options

A_FILE, SEVERAL = "PATH", "STATE"
"""The kinds of values that are files, or words with commas between them."""

BASH = """\
# Completion of cc-slurm-adapter(8) for bash. Made by docs/completion.py; not edited by hand.

_cc_slurm_adapter() {
    local current=${COMP_WORDS[COMP_CWORD]} command='' before='' after='' given=' ' begin='' words='' word i
    local IFS=$' \t\n'
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]/#--/-}
        # bash takes -config=PATH for three words.
        [[ $word == = ]] && continue
        given+="$word "
        case $word in
@commands@
        esac
        after=$word
        if [[ $before == -queue ]]; then
            command="queue $word"
            after=$command
        fi
        before=$word
    done
    [[ $current == = ]] && current=''
    # After a flag that needs a value there is nothing but the value.
    case $after in
@values@
    esac
    case $command in
@flags@
    esac
    for word in $words; do
        [[ $current == --* && $word == -* ]] && word=-$word
        [[ " $given ${begin//,/ } " == *" ${word/#--/-} "* ]] && continue
        [[ $begin$word == "$current"* ]] && COMPREPLY+=("$begin$word")
    done
    return 0
}

complete -F _cc_slurm_adapter cc-slurm-adapter
"""

ZSH = """\
#compdef cc-slurm-adapter
# Completion of cc-slurm-adapter(8) for zsh. Made by docs/completion.py; not edited by hand.

local command= before= word
local -a specs

words=("${words[1]}" "${(@)words[2,-1]/#--/-}")
for word in "${(@)words[2,CURRENT-1]}"; do
    word=${word%%=*}
    case $word in
@commands@
    esac
    [[ $before == -queue ]] && command="queue $word"
    before=$word
done
case $command in
@flags@
esac
_arguments $specs
"""


def bash() -> str:
    """Return the completion for bash, which it reads from a file called cc-slurm-adapter."""
    parts = {
        "commands": _commands(12),
        "values": _cases(_bash_values(), 8),
        "flags": _cases({state: f"words+=' {_names(fitting)}'" for state, fitting in _fitting().items() if fitting}, 8),
    }
    return _filled(BASH, parts)


def zsh() -> str:
    """Return the completion for zsh, which it reads from a file called _cc-slurm-adapter in its fpath."""
    specs = {state: f"specs=({_zsh_specs(state, fitting)})" for state, fitting in _fitting().items()}
    return _filled(ZSH, {"commands": _commands(8), "flags": _cases(specs, 4)})


def _filled(text: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _cases(cases: Mapping[str, str], depth: int) -> str:
    """Return the lines of a `case` of both shells, from what is matched as it is to what is done then."""
    return "\n".join(f"{' ' * depth}{_quoted(word)}) {what} ;;" for word, what in cases.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"


def _names(named: list[Flag]) -> str:
    return " ".join(f"-{flag.name}" for flag in named)


# --- which command is given, and which flags are offered then


def _commands(depth: int) -> str:
    """Return cases in which `$word` sets `$command`. What also goes with another command is one only if it is first."""
    with_others = {flag.name for flag in options()}
    sets = "command=${command:-%s}", "command=%s"
    return _cases({f"-{flag.name}": sets[flag.name not in with_others] % flag.name for flag in commands()}, depth)


def _state(call: Call) -> str:
    """Return what `$command` is in a line of the synopsis: the command, and the first of the words after it."""
    return " ".join([call.flag.name, *call.words.split()[:1]])


def _fitting() -> dict[str, list[Flag]]:
    """Return the flags that are offered by what `$command` is: those of the command; without one, the commands."""
    anywhere = [flag for flag in options() if is_accepted_anywhere(flag)]
    words_to_come: dict[str, list[Flag]] = {call.flag.name: [] for call in calls()}
    return {"": [*commands(), *anywhere], **words_to_come, **{_state(call): list(call.fitting) for call in calls()}}


def _following() -> dict[str, str]:
    """Return the kind of the second value by what `$command` is, where a command has two."""
    return {_state(call): word for call in calls() for word in call.words.split()[1:]}


# --- values


def _bash_values() -> dict[str, str]:
    """Return what is done after a word that may have a value after it."""
    of_flags = {f"-{flag.name}": _bash_value(flag.value, flag.nargs) for flag in flags().values() if flag.value}
    return {**of_flags, **{state: _bash_value(kind, "") for state, kind in _following().items()}}


def _bash_value(kind: str, nargs: str) -> str:
    """Return commands that offer values of a kind. Flags are offered beside them only if the value may be left out."""
    words = f"words='{' '.join(VALUES[kind].words)}'"
    if nargs == "?":
        return words
    if kind == A_FILE:
        return 'compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return 0'
    if kind == SEVERAL:
        words += "; [[ $current == *,* ]] && begin=${current%,*},"
    return f"{words}; command=none"


def _zsh_specs(state: str, fitting: list[Flag]) -> str:
    """Return arguments of `_arguments`: the flags that are offered, and the command itself with its values."""
    own = [flag for flag in commands() if state and flag.name == state.split()[0]]
    return " ".join(_zsh_spec(flag, _following().get(state, "") if flag in own else "") for flag in [*own, *fitting])


def _zsh_spec(flag: Flag, following: str) -> str:
    what = flag.help.translate({ord(char): f"\\{char}" for char in "[]"})
    optional = ":" if flag.nargs == "?" else ""
    values = [f"{optional}:{kind}:{_zsh_action(kind)}" for kind in (flag.value, following) if kind]
    return _quoted(f"-{flag.name}[{what}]{''.join(values)}")


def _zsh_action(kind: str) -> str:
    words = " ".join(VALUES[kind].words)
    if kind == A_FILE:
        return "_files"
    if kind == SEVERAL:
        return f"_values -s , {kind} {words}"
    return f"({words})" if words else " "


def write(folder: Path) -> None:
    """Write both files into a folder, which is made if there is none, as the shells look for them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_text(bash(), encoding="utf-8")
    (folder / f"_{PROGRAM}").write_text(zsh(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{sys.argv[0]}: name the folder for the two files")
    write(Path(sys.argv[1]))
