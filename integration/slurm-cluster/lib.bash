# Shared by `up`, `status` and `down`: messages, the state directory, its settings, processes and cgroups.
# Sourced, never run. Everything a cluster owns is found from its state directory and its name.
# shellcheck shell=bash
# Most variables set here are read by the scripts that source this file.
# shellcheck disable=SC2034

readonly PROGRAM=${0##*/}
readonly CGROUP_ROOT=/sys/fs/cgroup
readonly CONTROLLER_ACCOUNT=slurm MUNGE_ACCOUNT=munge DATABASE_ACCOUNT=mysql
# Exit codes, as init scripts have them: 1 failed, 2 wrong use, 3 not running.
readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_NOT_UP=3
# The variable that every process of a login by the cluster's SSH server has.
readonly LOGIN_MARK=SLURM_CLUSTER_LOGIN
# What a cluster is made with, in the order in which it is kept.
readonly SETTING_KEYS=(NAME NODES CPUS MEMORY_MB GPUS ACCOUNTING MIN_JOB_AGE NODE_TIMEOUT EPILOG SSH CGROUPS PORT)

say() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; }
die() {
    say "$@"
    exit "$EXIT_FAILED"
}
usage_error() {
    say "$* (see $PROGRAM --help)"
    exit "$EXIT_USAGE"
}

# The comment at the top of the calling script is its help.
show_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

require_root() {
    [ "$(id -u)" = 0 ] || die "must run as root (Slurm starts jobs under the accounts of their owners): sudo $0 ..."
}

# require_programs REMEDY PROGRAM...
require_programs() {
    local remedy=$1 program missing=()
    shift
    for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
    [ ${#missing[@]} -eq 0 ] || die "missing ${missing[*]}; $remedy"
}

# require_accounts REMEDY ACCOUNT...
require_accounts() {
    local remedy=$1 account
    shift
    for account in "$@"; do
        id -u "$account" >/dev/null 2>&1 || die "the account '$account' is missing; its package makes it: $remedy"
    done
}

require_packages() {
    require_programs "install Slurm: apt-get install -y slurm-wlm munge util-linux" \
        munged mungekey slurmctld slurmd sbatch squeue scancel scontrol sinfo flock setpriv setsid
    require_accounts "apt-get install -y slurm-wlm munge" "$CONTROLLER_ACCOUNT" "$MUNGE_ACCOUNT"
}

# use_state_dir PATH: checks the path and sets the names of everything in it.
use_state_dir() {
    [ -n "$1" ] || usage_error "STATE_DIR is empty"
    # Slurm splits configuration values at blanks, commas and '#', and expands '%'.
    [[ $1 =~ ^[A-Za-z0-9./_+@-]+$ ]] ||
        usage_error "STATE_DIR '$1': Slurm can't use a path with blanks or special characters; use letters, digits and . / _ + @ -"
    STATE_DIR=$(realpath -m -- "$1")
    [[ $STATE_DIR =~ ^[A-Za-z0-9./_+@-]+$ ]] || usage_error "STATE_DIR resolves to '$STATE_DIR', a path that Slurm can't use"
    [ "$STATE_DIR" != / ] || usage_error "STATE_DIR can't be /"
    SETTINGS=$STATE_DIR/etc/cluster.settings
    CONF=$STATE_DIR/etc/slurm.conf
    MUNGE_SOCKET=$STATE_DIR/munge/socket
    DB_DATA=$STATE_DIR/db/data
    DB_TEMPORARY=$STATE_DIR/db/tmp
    DB_SOCKET=$STATE_DIR/db/socket
    SSH_DIR=$STATE_DIR/ssh
    LOG_DIR=$STATE_DIR/log
    LOCK=$STATE_DIR/.slurm-cluster.lock
}

# Whether the directory is a cluster's, or of an up that failed early: nothing else is ever taken over or removed.
is_state_dir() { [ -e "$LOCK" ] || [ -e "$SETTINGS" ]; }

# What the cluster was made with. Kept as KEY=VALUE lines and read as data, never run.
load_settings() {
    local key value
    for key in "${SETTING_KEYS[@]}"; do printf -v "$key" ''; done
    [ -f "$SETTINGS" ] || return 1
    while IFS='=' read -r key value; do
        if [[ " ${SETTING_KEYS[*]} " == *" $key "* ]]; then printf -v "$key" '%s' "$value"; fi
    done <"$SETTINGS"
    [ -n "$NAME" ] && [ -n "$NODES" ] && [ -n "$PORT" ]
}

save_settings() {
    local key
    for key in "${SETTING_KEYS[@]}"; do printf '%s=%s\n' "$key" "${!key}"; done >"$SETTINGS.new"
    mv "$SETTINGS.new" "$SETTINGS"
}

# One of up and down at a time works on a state directory.
lock_state_dir() {
    exec 9>"$LOCK"
    flock -w 90 9 || die "another up or down has been working on $STATE_DIR for 90 seconds"
}

node_name() { printf '%s-n%s' "$NAME" "$1"; }

ssh_port() { printf '%s' $((PORT + NODES + 2)); }

# A command of Slurm against this cluster, never waiting long for a dead controller.
slurm() { SLURM_CONF=$CONF timeout 15 "$@"; }

# pids_with cmdline|environ ENTRY [PROGRAM]: processes that have exactly this argument or variable, and run PROGRAM.
# This is what tells our processes from a stranger who got the number in a stale pid file, and finds those without one.
pids_with() {
    local file pid exe
    while IFS= read -r file; do
        pid=${file#/proc/}
        pid=${pid%%/*}
        exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || continue
        exe=${exe% (deleted)}
        # Debian's alternatives make slurmctld a link to slurmctld-wlm.
        if [[ -z ${3:-} || ${exe##*/} == "$3" || ${exe##*/} == "$3-wlm" ]]; then printf '%s\n' "$pid"; fi
    done < <(grep -lzxF -e "$2" /proc/[0-9]*/"$1" 2>/dev/null || true)
}

# The cluster's sshd, and with it those that serve its logins. They write over their arguments and environment, but all keep
# the log open.
sshd_pids() {
    local file pid exe
    [ -e "$LOG_DIR/sshd.log" ] || return 0
    while IFS= read -r file; do
        pid=${file#/proc/}
        pid=${pid%%/*}
        exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || continue
        if [[ ${exe##*/} == sshd* ]]; then printf '%s\n' "$pid"; fi
    done < <(find /proc/[0-9]*/fd -lname "$LOG_DIR/sshd.log" 2>/dev/null || true)
}

# daemon_pids munged|mariadbd|slurmdbd|slurmctld|sshd|slurmd [NODE]
daemon_pids() {
    local pid
    case $1 in
    munged) pids_with cmdline "--socket=$MUNGE_SOCKET" munged ;;
    mariadbd) pids_with cmdline "--datadir=$DB_DATA" mariadbd ;;
    # It takes no configuration file as an argument, and finds its own beside Slurm's.
    slurmdbd) pids_with environ "SLURM_CONF=$CONF" slurmdbd ;;
    slurmctld) pids_with cmdline "$CONF" slurmctld ;;
    # Only the one that listens.
    sshd) for pid in $(sshd_pids); do if grep -qsF "sshd_config -E" "/proc/$pid/cmdline"; then printf '%s\n' "$pid"; fi; done ;;
    slurmd)
        for pid in $(pids_with cmdline "$CONF" slurmd); do
            if grep -qzxF -e "$2" "/proc/$pid/cmdline" 2>/dev/null; then printf '%s\n' "$pid"; fi
        done
        ;;
    esac
}

# stop_pids SECONDS PID...: asks, waits, then kills.
stop_pids() {
    local patience=$(($1 * 20)) pid left
    shift
    [ $# -gt 0 ] || return 0
    kill -TERM "$@" 2>/dev/null || true
    while :; do
        left=()
        for pid in "$@"; do
            # A zombie waits for its parent to look; there is nothing left to stop.
            if [ -d "/proc/$pid" ] && ! grep -qs '^State:.Z' "/proc/$pid/status"; then left+=("$pid"); fi
        done
        [ ${#left[@]} -gt 0 ] || return 0
        patience=$((patience - 1))
        if [ "$patience" -eq 0 ]; then kill -KILL "${left[@]}" 2>/dev/null || true; fi
        [ "$patience" -gt -40 ] || return 1
        sleep 0.05
    done
}

# The cgroups of our nodes. v1: one a controller, made by slurmd. v2: one for the steps, made by slurmd, and one for slurmd.
node_cgroups() {
    local index node path
    for ((index = 1; index <= NODES; index++)); do
        node=$(node_name "$index")
        for path in "$CGROUP_ROOT"/*/"slurm_$node" "$CGROUP_ROOT"/system.slice/"$node"_{slurmstepd,slurmd}.scope; do
            if [ -d "$path" ]; then printf '%s\n' "$path"; fi
        done
    done
}

remove_cgroups() {
    local path try
    for ((try = 0; try < 20; try++)); do
        while IFS= read -r path; do
            find "$path" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        done < <(node_cgroups)
        [ -n "$(node_cgroups)" ] || return 0
        # The kernel lets go of a cgroup a moment after its last process.
        sleep 0.1
    done
    return 1
}

# Slurm's step managers of this cluster, and whatever its jobs left running: inside its cgroups, or, where jobs are not in
# cgroups, with the name of one of its nodes in their environment. And what its logins left running.
leftover_pids() {
    local index path
    {
        pids_with environ "SLURM_CONF=$CONF" slurmstepd
        pids_with environ "$LOGIN_MARK=$STATE_DIR"
        for ((index = 1; index <= NODES; index++)); do pids_with environ "SLURMD_NODENAME=$(node_name "$index")"; done
        while IFS= read -r path; do
            find "$path" -name cgroup.procs -exec cat {} + 2>/dev/null || true
        done < <(node_cgroups)
    } | sort -un
}
