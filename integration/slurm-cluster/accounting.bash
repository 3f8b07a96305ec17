# Used by `up`: the accounting of a cluster, which is slurmdbd and a MariaDB of its own, reached by a socket only.
# Sourced after lib.bash, never run. No password exists: the database knows its clients by their Unix accounts.
# shellcheck shell=bash

readonly DB_NAME=slurm_acct_db ACCOUNTING_TIMEOUT=20

require_accounting_packages() {
    local remedy='apt-get install -y slurmdbd mariadb-server, or go without: --no-accounting'
    require_programs "install the accounting's packages: $remedy" slurmdbd mariadbd mariadb-install-db mariadb sacctmgr
    require_accounts "$remedy" "$DATABASE_ACCOUNT"
}

# The database's own tables, made once.
make_database() {
    local log=$LOG_DIR/mariadb-install-db.log file
    # The socket is for slurmdbd's account, the files for nobody else.
    install -d -m 0710 -o "$DATABASE_ACCOUNT" -g "$CONTROLLER_ACCOUNT" "$STATE_DIR/db"
    # A server that starts removes all temporary tables of its folder: in a shared one, those of other servers too.
    install -d -m 0700 -o "$DATABASE_ACCOUNT" "$DB_TEMPORARY"
    for file in "mariadbd.log $DATABASE_ACCOUNT" "slurmdbd.log $CONTROLLER_ACCOUNT"; do
        [ -e "$LOG_DIR/${file% *}" ] || install -m 0644 -o "${file#* }" /dev/null "$LOG_DIR/${file% *}"
    done
    [ ! -d "$DB_DATA" ] || return 0
    # Renamed when complete, so that one that was interrupted is made anew. Run as root it would change files in /usr.
    rm -rf "$DB_DATA.new"
    (cd / && setpriv --reuid="$DATABASE_ACCOUNT" --regid="$DATABASE_ACCOUNT" --clear-groups mariadb-install-db --no-defaults \
        --datadir="$DB_DATA.new" --tmpdir="$DB_TEMPORARY" --skip-test-db --auth-root-authentication-method=socket \
        --innodb-log-file-size=16M >"$log" 2>&1) || {
        grep -i error "$log" >&2 || true
        die "MariaDB's tables could not be made; all it said is in $log"
    }
    chmod 0700 "$DB_DATA.new"
    mv "$DB_DATA.new" "$DB_DATA"
}

# Fails while the database doesn't answer.
prepare_tables() {
    mariadb --no-defaults --socket="$DB_SOCKET" --execute "CREATE DATABASE IF NOT EXISTS $DB_NAME;
        CREATE USER IF NOT EXISTS '$CONTROLLER_ACCOUNT'@'localhost' IDENTIFIED VIA unix_socket;
        GRANT ALL ON $DB_NAME.* TO '$CONTROLLER_ACCOUNT'@'localhost';"
}

# Fails while slurmdbd doesn't answer.
register_cluster() {
    local known
    known=$(slurm sacctmgr -n -P show cluster "$NAME" format=cluster) || return 1
    [ "$known" = "$NAME" ] || slurm sacctmgr -Q -i add cluster "$NAME"
}

write_slurmdbd_conf() {
    local file=$STATE_DIR/etc/slurmdbd.conf
    # slurmdbd wants the file to be its own, and closed.
    install -m 0600 -o "$CONTROLLER_ACCOUNT" /dev/null "$file"
    cat >"$file" <<CONF
# Written by $HERE/up and rewritten at each start of the whole cluster.
DbdHost=$(hostname -s)
DbdAddr=$ADDRESS
DbdPort=$DBD_PORT
$COMMUNICATION
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
SlurmUser=$CONTROLLER_ACCOUNT
LogFile=$LOG_DIR/slurmdbd.log
PidFile=$STATE_DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$CONTROLLER_ACCOUNT
StorageLoc=$DB_NAME
CONF
}

start_accounting() {
    # A small database: several may run side by side. How long it waits for a lock is what slurmdbd asks for.
    start mariadbd setpriv --reuid="$DATABASE_ACCOUNT" --regid="$DATABASE_ACCOUNT" --clear-groups setsid --fork \
        "$(command -v mariadbd)" --no-defaults --skip-networking --datadir="$DB_DATA" --tmpdir="$DB_TEMPORARY" --socket="$DB_SOCKET" \
        --pid-file="$STATE_DIR/db/mariadbd.pid" --log-error="$(log_of mariadbd)" --innodb-lock-wait-timeout=900 \
        --innodb-buffer-pool-size=32M --innodb-log-file-size=16M --key-buffer-size=1M --aria-pagecache-buffer-size=8M \
        --innodb-use-native-aio=OFF
    wait_for "$ACCOUNTING_TIMEOUT" mariadbd prepare_tables
    # The variable is how MariaDB's client library learns of another socket.
    start slurmdbd env MYSQL_UNIX_PORT="$DB_SOCKET" "$(command -v slurmdbd)"
    wait_for "$ACCOUNTING_TIMEOUT" slurmdbd register_cluster
}
