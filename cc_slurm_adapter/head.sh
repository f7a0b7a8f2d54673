#!/bin/sh
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
    # Without clobbering nothing that exists is emptied, also not through a link that someone left there.
    # `true`, not `:`, because a redirection that fails on a special builtin would end this shell.
    set -C
    { true > "${CC_SLURM_ADAPTER_EVENTS:-/var/lib/cc-slurm-adapter/events}/$event"; } 2> /dev/null
}

# The trouble of a hook goes to syslog, if there is a program for it. Nobody reads its stderr.
log() {
    for logger in /usr/bin/logger logger; do
        if command -v "$logger" > /dev/null 2>&1; then
            "$logger" -t cc-slurm-adapter -p daemon.err "$1" > /dev/null 2>&1
            return
        fi
    done
}

# This file by an absolute path: the daemon changes its folder and loads more from here later.
find_self() {
    case $0 in
        /*) self=$0 ;;
        */*) self=$PWD/$0 ;;
        *) if [ -f "$0" ]; then self=$PWD/$0; else self=$(command -v -- "$0"); fi ;;
    esac
}

# Isolated (-I): nothing of the caller's Python settings or folders. -S: nothing of the host's packages.
# -B: no bytecode is written anywhere. The code is started by -c because that is 10 ms quicker than
# handing the archive to Python, and it finds out by itself whether this Python is too old.
run_hook() {
    "$python" -I -S -B -X utf8 -c "$start_hook" "$self" "$@"
    status=$?
    case $status in
        0) exit 0 ;;
        126 | 127) ;; # cannot be started, or is too old: the next one
        *) log "the hook ended with exit code $status under $python"; exit 0 ;;
    esac
}

start_hook='import sys
if sys.version_info < (3, 9):
    sys.exit(126)
sys.path.insert(0, sys.argv.pop(1) + "/site-packages")
from cc_slurm_adapter.__main__ import main
sys.exit(main(sys.argv[1:]))'

# `exec`, so that the daemon is the process that systemd started and signals.
run_program() {
    "$python" -I -S -B -c 'import sys; sys.exit(sys.version_info < (3, 9))' < /dev/null > /dev/null 2>&1 &&
        exec "$python" -I -S -B -X utf8 "$self" "$@"
}

main() {
    hook=
    is_hook "$@" && hook=yes
    if [ "$hook" ] && [ $# -eq 0 ]; then
        leave_event && exit 0
        set +C
    fi
    find_self
    for python in "${CC_SLURM_ADAPTER_PYTHON-}" /usr/bin/python3 /usr/libexec/platform-python \
        python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
        command -v "$python" > /dev/null 2>&1 || continue
        if [ "$hook" ]; then run_hook "$@"; else run_program "$@"; fi
    done
    problem="no Python 3.9 or newer found: set CC_SLURM_ADAPTER_PYTHON to one, or install python3"
    if [ "$hook" ]; then
        log "$problem"
        exit 0
    fi
    echo "cc-slurm-adapter: $problem" >&2
    exit 1
}

# One line, read as a whole before it runs: what follows it is no shell code.
main "$@"; exit
