#!/bin/sh
# Half of this file, while it is copied, is the end of no job, and else an error that the next start may not meet.
trap '[ "${SLURM_JOB_ID+set}" ] && exit 0; exit 2' EXIT
# cc-slurm-adapter reports Slurm jobs to cc-backend. This is its shell part; a zip archive with the
# Python part follows, and Python runs straight from it.
#
# Slurm gives its hooks almost no environment and waits for them. So a bare hook call is served by
# shell builtins alone, and every hook call exits 0 whatever happens.

set -f

# A hook call: SLURM_JOB_ID is set, and nothing but -config and -debug is among the arguments.
is_hook() {
    [ "${SLURM_JOB_ID+set}" ] || return 1
    value_follows=
    for argument do
        case $value_follows:$argument in
            yes:*) value_follows= ;;
            :-config | :--config | :-debug | :--debug) value_follows=yes ;;
            :-config=* | :--config=* | :-debug=* | :--debug=*) ;;
            *) return 1 ;;
        esac
    done
}

# Leaves the event as an empty file, for the daemon to find: <job id>.<context>.<cluster>.<pid>.
# The characters are listed one by one because ranges depend on the locale. A cluster with any other
# name is left to Python, so that its events are not lost.
# Nothing but /run is touched, so that no hook waits for a disk that is stuck.
leave_event() {
    case $SLURM_JOB_ID in
        '' | *[!0123456789]* | ?????????????????????*) return 1 ;;
    esac
    case ${SLURM_CLUSTER_NAME-} in
        *[!ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-]*) return 1 ;;
    esac
    context=${SLURM_SCRIPT_CONTEXT-}
    case $context in
        *[!abcdefghijklmnopqrstuvwxyz_]*) context= ;;
    esac
    event=$SLURM_JOB_ID.$context.${SLURM_CLUSTER_NAME-}.$$
    events=${CC_SLURM_ADAPTER_EVENTS:-/run/cc-slurm-adapter/events}
    if is_closed; then
        # Without its socket the daemon is away for longer. What began meanwhile it will find by itself.
        [ ! -S /run/cc-slurm-adapter/daemon.sock ]
        return
    fi
    # Without clobbering nothing that exists is emptied, also not through a link that someone left there.
    # `true`, not `:`, because a redirection that fails on a special builtin would end this shell.
    set -C
    { true > "$events/$event"; } 2> /dev/null
}

# Whether nobody takes events from the folder any more, which is in memory and must not fill it. The daemon
# keeps the time of this file some minutes ahead. The folder's time is that of the last event.
is_closed() {
    open=$events/.${SLURM_CLUSTER_NAME-}.open
    [ -e "$open" ] && [ "$events" -nt "$open" ]
}

# The trouble of a hook goes to syslog, if there is a program for it. Nobody reads its stderr, and nobody
# waits for a logger that is stuck.
log() {
    for logger in /usr/bin/logger logger; do
        if locate "$logger"; then
            "$found" -t cc-slurm-adapter -p daemon.err "$1" < /dev/null > /dev/null 2>&1 &
            return
        fi
    done
}

# Looks for a program as the shell does, into $found. A $(command -v) would need another process.
locate() {
    case $1 in
        */*) found=$1; [ -f "$found" ] && [ -x "$found" ]; return ;;
    esac
    [ "$1" ] || return
    IFS=:
    for folder in $PATH; do
        found=${folder:-.}/$1
        if [ -f "$found" ] && [ -x "$found" ]; then unset IFS; return; fi
    done
    unset IFS
    return 1
}

# This file by an absolute path: the daemon changes its folder and loads more from here later.
find_self() {
    self=$0
    case $0 in
        */*) ;;
        *) [ -f "$0" ] || { locate "$0" && self=$found; } ;;
    esac
    case $self in
        /*) ;;
        *) self=$PWD/$self ;;
    esac
}

# A hook call becomes Python without another process, since a user's processes may be used up: then dash
# ends and bash tries for 15 s. Only what is a script, as the names that version managers leave behind,
# has to be tried: it may fail without having started any Python.
# Nothing of the caller's Python settings and of the host's packages (-E -s -S); -I and -X would be an
# error in Python 2. -c is 10 ms quicker than handing the archive to Python.
run_hook() {
    IFS= read -r first < "$found"
    case $first in
        '#!'*) "$found" -E -s -S -B -c 'import sys; exec(sys.argv[1])' "$start_hook" "$self" "$others" "$@" && exit 0 ;;
        *) exec "$found" -E -s -S -B -c 'import sys; exec(sys.argv[1])' "$start_hook" "$self" "$others" "$@" ;;
    esac
} > /dev/null 2>&1

# Every Python can read this. One that is too old starts the others in turn; these have no others and
# say by their exit code whether they are new enough. What goes wrong is told by a process of its own,
# because syslog may be stuck.
start_hook='
import sys
sys.path.pop(0)
import os

class Front:
    # Finds the modules that the archive begins with, which are all that a hook may need. To read the table of
    # contents of the whole archive would take longer than to run them. What was read stays, also while an upgrade
    # puts another file in the place of this one.
    def __init__(self, file):
        self.sources = {}
        at = file.index(b"\nPK\3\4") + 1
        while True:
            size, named, more = [int.from_bytes(file[at + a:at + b], "little") for a, b in ((22, 26), (26, 28), (28, 30))]
            begin = at + 30 + named + more
            name = file[at + 30:at + 30 + named].decode()
            at = begin + size
            if not name.startswith("site-packages/") or at > len(file):
                return
            self.sources[name] = file[begin:at]

    def find_spec(self, name, path=None, target=None):
        folder = "site-packages/" + name.replace(".", "/")
        if folder + ".py" in self.sources:
            return type(sys.__spec__)(name, self, origin=folder + ".py")
        if folder + "/__init__.py" in self.sources:
            return type(sys.__spec__)(name, self, origin=folder + "/__init__.py", is_package=True)

    def create_module(self, spec):
        pass

    def exec_module(self, module): # not by compile(), whose first call takes a millisecond more
        exec(self.sources[module.__spec__.origin], module.__dict__)

def log(problem):
    if os.fork() == 0:
        import signal, syslog
        signal.alarm(2)
        syslog.openlog("cc-slurm-adapter", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, problem)

def start_another():
    tried = [os.path.realpath(sys.executable)]
    for name in others.split():
        for folder in os.environ["PATH"].split(":"):
            python = os.path.join(folder, name)
            if os.access(python, os.X_OK) and os.path.realpath(python) not in tried:
                tried.append(os.path.realpath(python))
                options = ["-E", "-s", "-S", "-B", "-c", "import sys; exec(sys.argv[1])", code, this, "none"]
                if os.spawnv(os.P_WAIT, python, [python] + options + arguments) == 0:
                    return
    log("no Python 3.9 or newer found, not even by " + sys.executable)

try:
    code, this, others = sys.argv[1:4]
    arguments = sys.argv[4:]
    if sys.version_info >= (3, 9):
        sys.meta_path.insert(0, Front(os.read(os.open(this, os.O_RDONLY), 131072)))
        from cc_slurm_adapter.hooks.hook import run_hook
        run_hook(arguments, os.environ)
    elif others == "none":
        os._exit(126)
    else:
        start_another()
except BaseException:
    try:
        log("the hook failed under " + sys.executable + ": " + repr(sys.exc_info()[1]))
    except BaseException:
        pass
os._exit(0)'

# Every Python can read this. Some are built without a part that only the daemon needs: then another one
# is looked for. Without zlib a Python cannot even read this file.
probe='
import sys
if sys.version_info < (3, 9): sys.exit(1)
import zlib
try: import sqlite3, ssl
except ImportError: sys.exit(3)'

# `exec`, so that the daemon is the process that systemd started and signals.
run_program() {
    "$found" -I -S -B -c "$probe" < /dev/null > /dev/null 2>&1
    case $? in
        0) start_program "$found" "$@" ;;
        3) incomplete=${incomplete:-$found} ;;
    esac
}

# Each thread of the daemon would get an arena of its own from glibc: half a megabyte in all, for nothing. And glibc
# would keep large blocks that are free: 7 MB with 50,000 jobs. With a fixed threshold the kernel gets them back.
start_program() {
    program=$1
    shift
    export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"
    export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-131072}"
    exec "$program" -I -S -B -X utf8 "$self" "$@"
}

main() {
    trap - EXIT # the file is whole
    hook=
    if is_hook "$@"; then
        hook=yes
        trap 'exit 0' EXIT # also when the shell gives up
        if [ $# -eq 0 ]; then
            leave_event && exit 0
            set +C
        fi
    fi
    export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
    find_self
    incomplete=
    python=${CC_SLURM_ADAPTER_PYTHON-}
    others="/usr/bin/python3 /usr/libexec/platform-python \
python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 "
    while [ "$python$others" ]; do
        if locate "$python"; then
            if [ "$hook" ]; then run_hook "$@"; else run_program "$@"; fi
        fi
        python=${others%% *}
        others=${others#* }
    done
    # It can do what needs no daemon, and says what it lacks.
    [ ! "$incomplete" ] || start_program "$incomplete" "$@"
    problem="no Python 3.9 or newer found: set CC_SLURM_ADAPTER_PYTHON to one, or install python3"
    if [ "$hook" ]; then
        log "$problem"
        exit 0
    fi
    priority=
    [ "${JOURNAL_STREAM+set}" ] && [ ! -t 2 ] && priority='<3>'
    echo "${priority}cc-slurm-adapter: $problem" >&2
    exit 1
}

# One line, read as a whole before it runs: what follows it is no shell code.
main "$@"; exit
