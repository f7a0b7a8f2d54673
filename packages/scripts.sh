# What the packages do when they are installed, upgraded and removed; packages/scripts.py adds which of it when.
# It works in a chroot without systemd, and nothing of it keeps a package from being installed.

program=/usr/sbin/cc-slurm-adapter
unit=cc-slurm-adapter.service
template=cc-slurm-adapter@.service
instances='cc-slurm-adapter@*.service'
by_hand=/usr/local/sbin/cc-slurm-adapter

# Prints a text, each argument as a line that fits on a terminal.
say() {
    printf 'cc-slurm-adapter: %s\n' "$1"
    shift
    for line in "$@"; do printf '  %s\n' "$line"; done
}

warn() { say "$@" >&2; }

has() { command -v "$1" > /dev/null 2>&1; }

# Whether systemd runs here (sd_booted(3)).
is_booted() { [ -d /run/systemd/system ] && has systemctl; }

reload_systemd() {
    if is_booted && ! systemctl daemon-reload; then
        warn "systemd did not read its units again:" "systemctl daemon-reload"
    fi
}

# --- installed, for the first time or again

first_installed() {
    make_user
    make_folders
    reload_systemd
    name_what_was_installed_by_hand
    say "it is installed, and not started. The next three commands:" \
        "$program -install    prints what is missing on this host" \
        "$program -check      says what is wrong, and what to do" \
        "systemctl enable --now cc-slurm-adapter"
}

upgraded() {
    make_user
    make_folders
    reload_systemd
    restart_what_runs
    name_what_was_installed_by_hand
}

make_user() {
    if has systemd-sysusers && systemd-sysusers cc-slurm-adapter.conf; then return; fi
    if id -u cc-slurm-adapter > /dev/null 2>&1; then return; fi
    useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cc-slurm-adapter ||
        warn "the user cc-slurm-adapter could not be made:" "make one before the daemon is started."
}

# The folder of the hooks' events. It belongs to SlurmUser's group, which is not this package's to make.
make_folders() {
    [ -d /etc/cc-slurm-adapter ] || mkdir -p -m 0755 /etc/cc-slurm-adapter || warn "/etc/cc-slurm-adapter could not be made."
    again="systemd-tmpfiles --create cc-slurm-adapter.conf"
    if ! has systemd-tmpfiles; then
        say "there is no systemd:" "/run/cc-slurm-adapter must be made at each boot, see docs/install.md, step 4."
    elif [ ! -e /etc/tmpfiles.d/cc-slurm-adapter.conf ] && ! getent group slurm > /dev/null; then
        say "there is no group slurm yet: Slurm's packages make it. Then run" \
            "$again" \
            "for the folder of the hooks' events. If SlurmUser's group has another name," \
            "cc-slurm-adapter -install prints what is to be done."
    elif ! $again; then
        warn "/run/cc-slurm-adapter could not be made." "When the reason is gone: $again"
    fi
}

# Those that run, and no others. A restart loses nothing: hooks leave their events, and the daemon goes on from its file.
restart_what_runs() {
    is_booted || return 0
    if ! systemctl try-restart "$unit" "$instances"; then
        warn "a daemon does not run again. What it says, and what is wrong:" \
            "systemctl status '$unit' '$instances'" \
            "cc-slurm-adapter -check"
    fi
    if [ -z "$(systemctl list-units --plain --no-legend "$unit" "$instances")" ]; then
        say "no daemon runs here. If one should:" "systemctl enable --now cc-slurm-adapter"
    fi
}

name_what_was_installed_by_hand() {
    if [ -e "$by_hand" ]; then
        warn "$by_hand was installed by hand." \
            "It comes first in PATH, and is not upgraded. Let slurm.conf, your hook" \
            "scripts and your units name $program," \
            "run scontrol reconfigure, and only then:" \
            "rm $by_hand"
    fi
    for each in "$unit" "$template"; do
        if [ -e "/etc/systemd/system/$each" ]; then
            warn "a unit that was installed by hand counts in place of the" \
                "package's. Put your own lines into a drop-in, and remove it:" \
                "systemctl edit $each" \
                "rm /etc/systemd/system/$each" \
                "systemctl daemon-reload" \
                "systemctl try-restart $unit '$instances'"
        fi
    done
}

# --- removed

# Prints Slurm's configuration: what slurmctld says or, if it is silent, slurm.conf; and the files of other clusters
# whose daemons run here.
slurms_configuration() {
    timeout -k 2 5 scontrol show config 2> /dev/null || cat "${SLURM_CONF:-/etc/slurm/slurm.conf}" 2> /dev/null || :
    sed -n 's/.*"slurmConf"[^"]*"\([^"]*\)".*/\1/p' /etc/cc-slurm-adapter/*.json 2> /dev/null |
        while read -r file || [ -n "$file" ]; do cat "$file" 2> /dev/null || :; done
}

# Prints the lines of it that name this file.
hooks_in_slurm() {
    found=$(slurms_configuration)
    key='^[[:space:]]*(Pro|Epi)log(Slurmctld)?(\[[0-9]+\])?[[:space:]]*='
    named='(.*[[:space:]:,"])?(/usr)?/s?bin/cc-slurm-adapter([[:space:]:,"]|$)'
    printf '%s\n' "$found" | grep -iE "$key$named" || :
    printf '%s\n' "$found" | grep -iE "$key" | tr ' \t,:="' '\n\n\n\n\n\n' | grep '^/' | sort -u | scripts_that_call_it
}

# Prints those of the files on standard input that are scripts and call this file.
scripts_that_call_it() {
    while read -r file; do
        if [ -f "$file" ] && [ "$(head -c 2 "$file")" = '#!' ] && [ "${file##*/}" != cc-slurm-adapter ] &&
            grep -qE '(^|[^/a-z])(/usr)?/s?bin/cc-slurm-adapter' "$file"; then
            printf '%s calls it\n' "$file"
        fi
    done
}

# Whether no hook needs the file that is to be removed. Newer slurmctlds do not start without it.
is_free_of_hooks() {
    lines=$(hooks_in_slurm)
    [ -n "$lines" ] || return 0
    warn "SLURM STILL CALLS $program:"
    printf '%s\n' "$lines" >&2
    warn "without this file slurmctld does not start again," \
        "and ends when it is reconfigured. First remove it from slurm.conf, on every" \
        "host that has it, and run scontrol reconfigure."
    return 1
}

# Whether a unit is one that was installed by hand, which counts in place of the package's.
is_by_hand() { [ -e "/etc/systemd/system/$1" ]; }

stop_and_disable() {
    has systemctl || return 0
    for each in "$unit" "$template"; do
        if is_by_hand "$each"; then
            say "$each was installed by hand:" "it is left alone."
            continue
        fi
        running=$each
        [ "$each" = "$unit" ] || running=$instances
        if is_booted && ! systemctl stop "$running"; then
            warn "a daemon could not be stopped:" "systemctl status '$running'"
        fi
        [ ! -e "/usr/lib/systemd/system/$each" ] || systemctl disable "$each" || warn "$each could not be disabled"
    done
}

removed() {
    reload_systemd
    for each in /etc/cc-slurm-adapter /var/lib/cc-slurm-adapter; do
        [ ! -d "$each" ] || say "$each stays."
    done
    say "the user cc-slurm-adapter stays."
}

# What the daemon has made goes, and nothing that the administrator has put into the folder of the configuration.
purged() {
    if is_by_hand "$unit" || is_by_hand "$template" || [ -e "$by_hand" ]; then
        say "/var/lib/cc-slurm-adapter stays, for what was installed by hand."
    else
        for each in /run/cc-slurm-adapter /var/lib/cc-slurm-adapter; do
            rm -rf "$each" || warn "$each could not be removed. What is in it belongs to nobody now."
        done
    fi
    if [ -d /etc/cc-slurm-adapter ] && ! rmdir /etc/cc-slurm-adapter 2> /dev/null; then
        say "/etc/cc-slurm-adapter stays: what is in it is yours."
    fi
    say "the user cc-slurm-adapter stays. If nothing else needs it:" \
        "sacctmgr -i remove user cc-slurm-adapter; userdel cc-slurm-adapter"
}
