# Used by `up`: an SSH server of the cluster's own, for programs that drive Slurm from elsewhere.
# Sourced after lib.bash, never run.
# shellcheck shell=bash

require_ssh_packages() {
    require_programs "install the SSH server that --ssh needs: apt-get install -y openssh-server" sshd ssh-keygen
}

# make_key FILE: an ed25519 key without a passphrase, made once.
make_key() { [ -s "$1" ] || ssh-keygen -q -t ed25519 -N '' -C "$NAME" -f "$1"; }

write_ssh_files() {
    install -d -m 0755 "$SSH_DIR"
    make_key "$SSH_DIR/host_key"
    make_key "$SSH_DIR/key"
    install -m 0644 "$SSH_DIR/key.pub" "$SSH_DIR/authorized_keys"
    printf '[127.0.0.1]:%s %s\n' "$SSH_PORT" "$(cut -d ' ' -f 1-2 "$SSH_DIR/host_key.pub")" >"$SSH_DIR/known_hosts"
    cat >"$SSH_DIR/sshd_config" <<CONF
# Written by $HERE/up and rewritten at each start of the whole cluster.
ListenAddress 127.0.0.1
Port $SSH_PORT
HostKey $SSH_DIR/host_key
PidFile $SSH_DIR/sshd.pid
AuthorizedKeysFile $SSH_DIR/authorized_keys
# The key's file is root's, but the directories above it may be open to all, as /tmp is.
StrictModes no
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
# Tests open many connections at once.
MaxStartups 200
# What a login needs to use the cluster, and a mark by which \`down\` knows what logins left running.
SetEnv SLURM_CONF=$CONF $LOGIN_MARK=$STATE_DIR
Subsystem sftp internal-sftp
CONF
}

start_sshd() {
    # Where sshd locks itself in before somebody has logged in; the path is built into it, and its service would make it.
    install -d -m 0755 /run/sshd
    start sshd "$(command -v sshd)" -f "$SSH_DIR/sshd_config" -E "$(log_of sshd)"
}
