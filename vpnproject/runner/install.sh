# Sourced by bin/run and bin/test: Debian packages and the virtual environment.
# shellcheck shell=bash

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
project=$(readlink -f "$here/../..")
venv=$project/.venv
policy=/usr/sbin/policy-rc.d
init_scripts=/etc/init.d
resolvconf_hook=/etc/resolvconf/update.d/unbound

say() { printf '  %-4s %s\n' "$1" "$2"; }

fail() {
    printf '  %-4s %s\n' '!!' "$1" >&2
    exit 1
}

# By itself, "set -e" ends a script without a word.
set -E
trap 'printf "  %-4s %s\n" "!!" "Stopped, since this failed: $BASH_COMMAND (${BASH_SOURCE[0]:-}:$LINENO)" >&2' ERR

# finished NAME START: one line for a step that began at START (a copy of $EPOCHREALTIME).
finished() {
    local took=$(((${EPOCHREALTIME/[.,]/} - ${2/[.,]/}) / 10000))
    printf '  %-4s %-46s %4d.%02d s\n' ok "$1" $((took / 100)) $((took % 100))
}

# since START: whole seconds from START (a copy of $EPOCHREALTIME) to now.
since() { echo $(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 1000000)); }

# Seconds between two signs that a step goes on.
tick_every=10
[[ ! -t 1 ]] || tick_every=1

# tick NAME START SHELL: say for how long a step goes on and what it said last, until somebody ends us, or the shell whose
# process SHELL is has ended.
tick() {
    local line parent
    while read -r _ _ _ parent _ </proc/self/stat && [[ $parent == "$3" ]]; do
        # The shell's own way to wait: a program that waits would outlive us, and hold the terminal.
        read -r -t "$tick_every" <> <(:) || true
        line=$(printf '%-46s %4d s' "$1" "$(since "$2")")
        if [[ -t 1 ]]; then
            printf '\r\033[K  %-4s %s  %.60s' .. "$line" "$(tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]')"
        else
            say '..' "$line"
        fi
    done
}

# watched NAME COMMAND...: one step. It is shown while it goes on, and with its time when it is done. What it says goes to
# the file $log, and is shown where it failed.
watched() {
    local name=$1 began=$EPOCHREALTIME shell=$BASHPID log ticker status=0
    shift
    log=$(mktemp)
    tick "$name" "$began" "$shell" &
    ticker=$!
    "$@" </dev/null >"$log" 2>&1 || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [[ ! -t 1 ]] || printf '\r\033[K'
    if [[ $status -eq 0 ]]; then
        finished "$name" "$began"
    else
        tail -n 20 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Which of the packages named are installed.
installed_packages() {
    # It fails when it knows nothing of a name; what it does not report as installed is missing.
    { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^ii *//p'
}

missing_packages() {
    local wanted
    mapfile -t wanted <"$1"
    comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(installed_packages "${wanted[@]}" | sort -u)
}

restore_policy() {
    [[ -f $policy ]] && grep -qs 'VPN server installer' "$policy" && rm -f "$policy"
    [[ -e $policy.before-vpn ]] && mv "$policy.before-vpn" "$policy"
    return 0
}

# While this policy is in place, no package starts a service. It denies only while process $$ lives: were we killed in
# the middle, it would not keep the machine's services down.
deny_service_starts() {
    restore_policy
    [[ -e $policy ]] && mv "$policy" "$policy.before-vpn"
    cat >"$policy" <<POLICY
#!/bin/sh
# VPN server installer: there for the time of one apt-get.
[ -d /proc/$$ ] && exit 101
[ -x $policy.before-vpn ] && exec $policy.before-vpn "\$@"
exit 0
POLICY
    chmod 0755 "$policy"
}

# Services that came with packages which we installed stay off at the next boot as well: we start our own Redis, on a
# socket of its own. A service that was on the machine before is not in this list, and is not touched.
disable_services_of() {
    local unit
    for unit in $({ dpkg -L "$@" 2>/dev/null || true; } | sed -n 's|^\(/usr\)\?/lib/systemd/system/\([^/@]*\.service\)$|\2|p' | sort -u); do
        # Both fail for some services that are off already; nothing here is worth ending the installation for.
        deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        if [[ -x $init_scripts/${unit%.service} ]]; then
            update-rc.d "${unit%.service}" disable >/dev/null 2>&1 || true
        fi
    done
    # Of the same kind is unbound's hook in resolvconf: without an unbound of the machine's own it would fail there.
    if [[ " $* " == *" unbound "* && -e $resolvconf_hook ]]; then chmod -x "$resolvconf_hook"; fi
    return 0
}

# install_packages LIST: the Debian packages named in the file, without recommends, without starting anything.
install_packages() {
    local missing count
    command -v dpkg-query >/dev/null || fail "This is neither Debian nor Ubuntu; install by hand: $(tr '\n' ' ' <"$1")"
    missing=$(missing_packages "$1")
    [[ -z $missing ]] && return
    count=$(wc -l <<<"$missing")
    say '..' "installing Debian packages: ${missing//$'\n'/ }"
    trap restore_policy EXIT
    deny_service_starts
    (
        # needrestart would restart services of the machine that use a library we upgraded.
        export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
        # A machine that has just booted may be installing its own updates: wait for it.
        options=(-o DPkg::Lock::Timeout=300 -y --no-install-recommends)
        # One that fails for somebody's repository need not keep these from being found.
        watched "Lists of Debian packages read" apt-get update || say '!' "They could not all be read; going on."
        # shellcheck disable=SC2086
        watched "Debian packages downloaded" apt-get install --download-only "${options[@]}" $missing &&
            watched "Debian packages installed ($count)" apt-get install "${options[@]}" $missing ||
            fail "apt-get could not install them; its words are above."
    ) || exit 1
    # shellcheck disable=SC2086
    disable_services_of $missing
    restore_policy
    trap - EXIT
}

# The Python to make the virtual environment with. Not all programs run as root, and a person's own Python may be where
# other users may not go (~/.pyenv): the system's comes first.
base_python() {
    local each
    for each in /usr/bin/python3 python3; do
        if command -v "$each" >/dev/null && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$each"
            return
        fi
    done
    echo python3
}

need_python() {
    command -v "$1" >/dev/null || fail "Python 3.11 or newer is missing: apt-get install python3 python3-venv"
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed (Debian 12, Ubuntu 24.04); this is $("$1" --version)."
}

# fingerprint PYTHON FILE...: what the virtual environment depends on, in one line.
fingerprint() { { realpath "$(command -v "$1")"; "$1" --version; cat "${@:2}"; } | sha256sum | cut -d ' ' -f 1; }

# made_with PYTHON: whether .venv is of this very Python.
made_with() { [[ $(realpath "$venv/bin/python") == $(realpath "$(command -v "$1")") ]]; }

# make_venv NAME FILE...: .venv with the requirements in the first FILE. All FILEs are part of the fingerprint, by which
# nothing is done when nothing changed. Further steps may follow in a function install_NAME.
make_venv() {
    local name=$1 wanted base
    shift
    base=$(base_python)
    wanted=$(fingerprint "$base" "$@")
    [[ -x $venv/bin/python && $(cat "$venv/.$name" 2>/dev/null) == "$wanted" ]] && return
    say '..' "installing Python packages from PyPI (a minute or two the first time)"
    need_python "$base"
    umask 022 # the programs' users read it
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 || ! made_with "$base"; then
        watched "Virtual environment made" "$base" -m venv --clear "$venv" || fail "$venv could not be made."
    fi
    watched "Python packages installed" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --requirement "$1" ||
        fail "pip could not install $1; its words are above."
    if declare -F "install_$name" >/dev/null; then "install_$name"; fi
    echo "$wanted" >"$venv/.$name"
}
