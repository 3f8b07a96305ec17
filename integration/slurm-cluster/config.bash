# Used by `up`: what this host offers to a cluster, and the files that a cluster is made of.
# Sourced after lib.bash, never run.
# shellcheck shell=bash

max() { printf '%s' $(($1 > $2 ? $1 : $2)); }

host_memory_mb() {
    local kilobytes limit
    kilobytes=$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)
    # In a container the limit of its cgroup is what there really is. "No limit" is a word, or a number near 2^63.
    for limit in "$CGROUP_ROOT/memory.max" "$CGROUP_ROOT/memory/memory.limit_in_bytes"; do
        limit=$(cat "$limit" 2>/dev/null || true)
        if [[ $limit =~ ^[0-9]{1,16}$ ]] && [ $((limit / 1024)) -lt "$kilobytes" ]; then kilobytes=$((limit / 1024)); fi
    done
    printf '%s' $((kilobytes / 1024))
}

can_make_cgroup_in() {
    local probe="$1/$NAME-probe"
    mkdir "$probe" 2>/dev/null && rmdir "$probe"
}

# Gives the children of a v2 cgroup the controllers that Slurm needs; Slurm 22.05 doesn't do that above its own cgroups.
delegate_controllers() {
    local controller
    for controller in cpuset cpu memory; do
        grep -qsw "$controller" "$1/cgroup.controllers" || return 1
        grep -qsw "$controller" "$1/cgroup.subtree_control" || printf '+%s' "$controller" 2>/dev/null >"$1/cgroup.subtree_control" || return 1
    done
}

v1_usable() {
    local controller
    for controller in freezer memory cpuset cpuacct; do
        can_make_cgroup_in "$CGROUP_ROOT/$controller" || return 1
    done
}

# Slurm knows no mixture of v2 and v1 controllers.
v2_usable() {
    [ "$(wc -l </proc/self/cgroup)" -eq 1 ] && can_make_cgroup_in "$CGROUP_ROOT" && delegate_controllers "$CGROUP_ROOT" &&
        mkdir -p "$CGROUP_ROOT/system.slice" 2>/dev/null && delegate_controllers "$CGROUP_ROOT/system.slice"
}

# Prints v1, v2 or none: the cgroups in which Slurm can hold jobs here.
usable_cgroups() {
    if [ "$(stat -fc %T "$CGROUP_ROOT" 2>/dev/null)" = cgroup2fs ]; then
        if v2_usable; then printf v2; else printf none; fi
    else
        if v1_usable; then printf v1; else printf none; fi
    fi
}

# Whether the kernel counts swap in cgroups; where it doesn't, Slurm must not try to limit it.
limits_swap() { [ -e "$CGROUP_ROOT/memory/memory.memsw.limit_in_bytes" ] || compgen -G "$CGROUP_ROOT/*/memory.swap.max" >/dev/null; }

# The address of the cluster. Slurm can bind to one address only by the host's own name, so where that is a loopback
# address (127.0.1.1 on Debian) it is taken, and everything stays on loopback.
choose_address() {
    ADDRESS=$(getent ahostsv4 "$(hostname)" 2>/dev/null | awk 'NR == 1 {print $1}')
    LOOPBACK_ONLY=yes COMMUNICATION='CommunicationParameters=NoInAddrAny,NoCtldInAddrAny'
    if [[ $ADDRESS != 127.* ]]; then ADDRESS=127.0.0.1 LOOPBACK_ONLY=no COMMUNICATION=''; fi
}

# The cluster's ports: the controller has PORT, the nodes the ones after it, then come slurmdbd's and sshd's.
ports_free() {
    local listening hex port
    # 0A is the state LISTEN.
    listening=$(awk '$4 == "0A" {print substr($2, length($2) - 3)}' /proc/net/tcp /proc/net/tcp6 2>/dev/null || true)
    for ((port = PORT; port <= PORT + NODES + 2; port++)); do
        printf -v hex '%04X' "$port"
        if grep -qx "$hex" <<<"$listening"; then return 1; fi
    done
}

choose_ports() {
    local low=20000 high try
    # Below the range from which the kernel hands out ports to everybody who connects.
    read -r high _ </proc/sys/net/ipv4/ip_local_port_range || high=32768
    if [ "$high" -lt 22000 ]; then low=61000 high=65000; fi
    for ((try = 0; try < 200; try++)); do
        PORT=$((low + RANDOM % (high - low - NODES - 3)))
        if ports_free; then return; fi
    done
    die "found no free range of $((NODES + 3)) ports between $low and $high"
}

make_directories() {
    local index file
    install -d -m 0755 "$STATE_DIR"/{etc,gpus,log,spool}
    install -d -m 0755 -o "$CONTROLLER_ACCOUNT" "$STATE_DIR/run"
    install -d -m 0700 -o "$CONTROLLER_ACCOUNT" "$STATE_DIR/state"
    install -d -m 0755 -o "$MUNGE_ACCOUNT" "$STATE_DIR/munge"
    # munged insists that nobody else can write where its files are; its log and pid are therefore in its own directory.
    if [ ! -s "$STATE_DIR/munge/key" ]; then
        mungekey --create --force --keyfile="$STATE_DIR/munge/key"
        chown "$MUNGE_ACCOUNT" "$STATE_DIR/munge/key"
        chmod 0400 "$STATE_DIR/munge/key"
    fi
    for file in slurmctld.log jobcomp.txt; do
        [ -e "$LOG_DIR/$file" ] || install -m 0644 -o "$CONTROLLER_ACCOUNT" /dev/null "$LOG_DIR/$file"
    done
    for ((index = 1; index <= NODES; index++)); do install -d -m 0755 "$STATE_DIR/spool/$(node_name "$index")"; done
    # Slurm wants a device for each GPU, and no device twice; it looks at the names only.
    for ((index = 0; index < GPUS; index++)); do ln -sfn /dev/null "$STATE_DIR/gpus/gpu$index"; done
    # No daemon runs, so these are of killed ones, and their numbers may belong to strangers by now.
    rm -f "$STATE_DIR"/run/*.pid
}

write_cgroup_conf() {
    local binds=$1
    # Slurm 22.05 loads a plugin even when nothing uses it, and its own detection fails where no cgroups are mounted;
    # v1 is the one that then does nothing.
    printf '# Written by %s.\nCgroupPlugin=cgroup/%s\nCgroupMountpoint=%s\n' "$HERE/up" "${CGROUPS/none/v1}" "$CGROUP_ROOT"
    if [ "$CGROUPS" = v2 ]; then printf 'IgnoreSystemd=yes\n'; fi
    if [ "$CGROUPS" != none ]; then
        printf 'ConstrainCores=%s\nConstrainRAMSpace=yes\n' "$binds"
        if limits_swap; then printf 'ConstrainSwapSpace=yes\nAllowedSwapSpace=0\n'; fi
    fi
}

write_gres_conf() {
    printf '# Written by %s.\nAutoDetect=off\n' "$HERE/up"
    if [ "$GPUS" -gt 0 ]; then printf 'Name=gpu File=%s/gpus/gpu[0-%s]\n' "$STATE_DIR" $((GPUS - 1)); fi
}

# Slurm forgets an epilog that isn't there when the controller starts; so it gets this one.
write_epilog() {
    printf '#!/bin/sh\n[ ! -x %s ] || exec %s\n' "$EPILOG" "$EPILOG" >"$STATE_DIR/etc/epilog"
    chmod 0755 "$STATE_DIR/etc/epilog"
}

write_slurm_conf() {
    local binds=$1 tracking task_plugin=() gather limits='' epilog='' gpu_types='' gpus='' accounting
    accounting=(AccountingStorageType=accounting_storage/none)
    if [ "$binds" = yes ]; then task_plugin+=(task/affinity); fi
    if [ "$CGROUPS" = none ]; then
        tracking=proctrack/linuxproc gather=jobacct_gather/linux
        # The kernel doesn't hold a job to its memory here, so Slurm measures it and stops the job.
        limits='JobAcctGatherParams=OverMemoryKill'
    else
        tracking=proctrack/cgroup gather=jobacct_gather/cgroup
        task_plugin=(task/cgroup "${task_plugin[@]}")
    fi
    [ ${#task_plugin[@]} -gt 0 ] || task_plugin=(task/none)
    if [ -n "$EPILOG" ]; then epilog="EpilogSlurmctld=$STATE_DIR/etc/epilog"; fi
    if [ "$ACCOUNTING" = yes ]; then
        # With munge the "password" is where to find munge: AuthInfo doesn't count for this one connection.
        accounting=(AccountingStorageType=accounting_storage/slurmdbd "AccountingStorageHost=$ADDRESS" "AccountingStoragePort=$DBD_PORT"
            "AccountingStoragePass=socket=$MUNGE_SOCKET" AccountingStoreFlags=job_comment)
    fi
    if [ "$GPUS" -gt 0 ]; then
        gpus="Gres=gpu:$GPUS" gpu_types=GresTypes=gpu
        # Without slurmdbd the controller refuses to count them.
        if [ "$ACCOUNTING" = yes ]; then accounting+=(AccountingStorageTRES=gres/gpu); fi
    fi
    cat <<CONF
# Written by $HERE/up and rewritten at each start of the whole cluster.
ClusterName=$NAME
SlurmctldHost=$(hostname -s)($ADDRESS)
SlurmctldPort=$PORT
$COMMUNICATION
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
CredType=cred/munge
SlurmUser=$CONTROLLER_ACCOUNT
SlurmdUser=root

StateSaveLocation=$STATE_DIR/state
SlurmdSpoolDir=$STATE_DIR/spool/%n
SlurmctldPidFile=$STATE_DIR/run/slurmctld.pid
SlurmdPidFile=$STATE_DIR/run/%n.pid
SlurmctldLogFile=$LOG_DIR/slurmctld.log
SlurmdLogFile=$LOG_DIR/%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
MpiDefault=none

# Jobs: what they may use, and how they end.
ProctrackType=$tracking
TaskPlugin=$(IFS=, && printf '%s' "${task_plugin[*]}")
JobAcctGatherType=$gather
JobAcctGatherFrequency=task=2
$limits
PropagateResourceLimits=NONE
JobRequeue=0
OverTimeLimit=0
KillWait=5
InactiveLimit=0
$epilog

# How many seconds finished jobs stay visible; all of them end in the completion log, and in the accounting where it is on.
MinJobAge=$MIN_JOB_AGE
MaxJobCount=100000
$(printf '%s\n' "${accounting[@]}")
JobCompType=jobcomp/filetxt
JobCompLoc=$LOG_DIR/jobcomp.txt

# Quick turn-round rather than throughput.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,sched_interval=5,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
EpilogMsgTime=0
$gpu_types

# A node that comes back is used again, whatever took it away. Its size is what is written here, not what the host has.
ReturnToService=2
SlurmdTimeout=$NODE_TIMEOUT
SlurmctldTimeout=60
SlurmdParameters=config_overrides
DefMemPerCPU=$(max 1 $((MEMORY_MB / CPUS)))
NodeName=$NAME-n[1-$NODES] NodeHostname=$(hostname -s) NodeAddr=$ADDRESS Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=$CPUS RealMemory=$MEMORY_MB $gpus State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=01:00:00 State=UP
CONF
}

write_configuration() {
    local binds=no
    choose_address
    DBD_PORT=$((PORT + NODES + 1)) SSH_PORT=$(ssh_port)
    # Every node believes that the host's first cores are its own: binding is right for one node with real CPUs only.
    if [ "$NODES" -eq 1 ] && [ "$CPUS" -le "$(nproc)" ]; then binds=yes; fi
    write_cgroup_conf "$binds" >"$STATE_DIR/etc/cgroup.conf"
    write_gres_conf >"$STATE_DIR/etc/gres.conf"
    write_slurm_conf "$binds" >"$CONF"
    if [ -n "$EPILOG" ]; then write_epilog; fi
    if [ "$ACCOUNTING" = yes ]; then write_slurmdbd_conf; fi
    if [ "$SSH" = yes ]; then write_ssh_files; fi
    save_settings
    if [ "$CGROUPS" = none ]; then
        say "no usable cgroups: processes are followed by proctrack/linuxproc, and memory is polled instead of enforced by the kernel"
    fi
    [ "$LOOPBACK_ONLY" = yes ] || say "the host's name doesn't mean a loopback address, so the daemons listen on every interface (munge authenticates each message)"
}

