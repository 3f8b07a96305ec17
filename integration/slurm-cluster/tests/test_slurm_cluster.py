"""The private Slurm cluster, from up to down, on this host. Every cluster of these tests has its own name and state."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import SlurmCluster, cluster_place, new_cluster, wait_until_gone

HERE = Path(__file__).resolve().parent.parent
SCRIPTS = ["up", "status", "down"]

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="session")
def shared(slurm_host: None) -> Iterator[SlurmCluster]:
    """One cluster for the tests that leave it running as they found it."""
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm_host: None) -> Iterator[SlurmCluster]:
    """A cluster of the test's own, which is not up yet."""
    with cluster_place() as cluster:
        yield cluster


# --- a running cluster ----------------------------------------------------------------------------------------------


def test_up_prints_the_configuration_and_leaves_idle_nodes(cluster: SlurmCluster) -> None:
    started = time.monotonic()
    done = cluster.up("--nodes", "2")
    assert time.monotonic() - started < 10
    assert done.stdout == f"SLURM_CONF={cluster.conf}\n"
    assert cluster.run("sinfo", "-h", "-N", "-o", "%P %T").splitlines() == ["main* idle"] * 2


def test_second_up_changes_nothing(shared: SlurmCluster) -> None:
    before = shared.pids()
    done = shared.up()
    assert "already up" in done.stderr
    assert done.stdout == f"SLURM_CONF={shared.conf}\n"
    assert shared.pids() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--nodes=7"], "NODES=1, not 7"),
        (["--gpus=2"], "GPUS=0, not 2"),
        (["--no-accounting"], "ACCOUNTING=yes, not no"),
        (["--min-job-age=9"], "MIN_JOB_AGE=3600, not 9"),
        (["--node-timeout=9"], "NODE_TIMEOUT=300, not 9"),
        (["--epilog=/bin/true"], "EPILOG=, not /bin/true"),
        (["--ssh"], "SSH=no, not yes"),
    ],
)
def test_another_shape_is_refused_while_running(shared: SlurmCluster, options: list[str], complaint: str) -> None:
    done = shared.script("up", *options, check=False)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_status_tells_daemons_nodes_and_partitions(shared: SlurmCluster) -> None:
    status = shared.status()
    assert (status["up"], status["name"], status["slurm_conf"]) == (True, shared.name, str(shared.conf))
    names = ["munged", "mariadbd", "slurmdbd", "slurmctld", f"slurmd/{shared.name}-n1"]
    assert [daemon["name"] for daemon in status["daemons"]] == names
    assert all(Path(f"/proc/{daemon['pid']}").exists() for daemon in status["daemons"])
    assert [(node["state"], node["cpus"]) for node in status["nodes"]] == [("idle", os.cpu_count())]
    assert status["partitions"] == [{"name": "main", "state": "up", "nodes": 1}]


def test_job_of_an_unprivileged_account_keeps_its_exit_code(shared: SlurmCluster, slurm_account: str) -> None:
    workdir = shared.state.parent / "job"
    workdir.mkdir()
    shutil.chown(workdir, slurm_account, slurm_account)
    script = f'id -un; cat {shared.state}/munge/key; pwd; echo "out of $SLURM_CPUS_ON_NODE"; exit 7'
    job = shared.submit(script, f"--output={workdir}/out", "--ntasks=1", cwd=workdir, account=slurm_account)
    assert shared.wait(job, "FAILED", "COMPLETED") == "FAILED"
    assert shared.field(job, "ExitCode") == "7:0"
    user, denied, cwd, cpus = (workdir / "out").read_text().splitlines()
    assert (user, cwd, cpus) == (slurm_account, str(workdir), "out of 1")
    assert "Permission denied" in denied


def test_turn_round_is_about_a_second(shared: SlurmCluster) -> None:
    started = time.monotonic()
    shared.wait(shared.submit("true"), "COMPLETED")
    assert time.monotonic() - started < 5


def test_memory_is_enforced_by_the_kernel(shared: SlurmCluster) -> None:
    if shared.status()["cgroups"] == "none":
        pytest.skip("this host has no usable cgroups, so the kernel holds no job to its memory")
    job = shared.submit("python3 -c 'bytearray(300 << 20)'", "--mem=50")
    assert shared.wait(job, "OUT_OF_MEMORY", "FAILED", "COMPLETED") == "OUT_OF_MEMORY"


def test_finished_jobs_stay_known_and_are_in_the_completion_log(shared: SlurmCluster) -> None:
    job = shared.submit("exit 4", "--job-name=kept")
    shared.wait(job, "FAILED")
    assert shared.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%j %T") == "kept FAILED"
    logged = shared.run("sacct", "-c", "-n", "-P", "-j", job, "-o", "jobid,jobname,state,exitcode")
    assert logged == f"{job}|kept|FAILED|4:0"
    assert logged == shared.run(
        "sacct",
        "-c",
        "-f",
        f"{shared.state}/log/jobcomp.txt",
        "-n",
        "-P",
        "-j",
        job,
        "-o",
        "jobid,jobname,state,exitcode",
    )


def test_everything_listens_on_loopback_only(slurm_cluster: SlurmCluster) -> None:
    if "NoInAddrAny" not in slurm_cluster.conf.read_text():
        pytest.skip("the name of this host doesn't mean 127.0.0.1, so Slurm can't bind to loopback alone")
    status = slurm_cluster.status()
    inodes = set()
    for pid in slurm_cluster.pids().values():
        inodes |= {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    listening = sorted(line.split()[1] for line in tables if " 0A " in line and f"socket:[{line.split()[9]}]" in inodes)
    # The controller, two nodes, slurmdbd and sshd; the database has a socket in its folder only.
    last = status["ssh"]["port"]
    assert listening == [f"0100007F:{port:04X}" for port in range(last - 4, last + 1)]


def test_the_state_is_open_to_jobs_and_the_keys_are_not(shared: SlurmCluster) -> None:
    def mode(path: str) -> int:
        return (shared.state / path).stat().st_mode & 0o777

    assert {
        path: mode(path) for path in ("", "etc", "log", "munge", "spool", f"spool/{shared.name}-n1")
    } == dict.fromkeys(("", "etc", "log", "munge", "spool", f"spool/{shared.name}-n1"), 0o755)
    assert (mode("munge/key"), mode("state")) == (0o400, 0o700)
    assert (shared.state / f"spool/{shared.name}-n1").stat().st_uid == 0


def test_pretended_cpus_run_many_jobs_at_once(cluster: SlurmCluster) -> None:
    cluster.up("--nodes=2", "--cpus=16", "--no-accounting")
    jobs = [cluster.submit("sleep 30") for _ in range(32)]
    for job in jobs:
        cluster.wait(job, "RUNNING")


def kill_all(cluster: SlurmCluster) -> None:
    pids = cluster.pids().values()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_until_gone(pid)


# --- accidents ------------------------------------------------------------------------------------------------------


def test_up_heals_a_killed_controller_under_a_running_job(cluster: SlurmCluster) -> None:
    cluster.up("--no-accounting")
    finished = cluster.submit("exit 3")
    running = cluster.submit("sleep 60")
    cluster.wait(finished, "FAILED")
    cluster.wait(running, "RUNNING")
    time.sleep(5)  # Slurm saves its jobs every few seconds; a controller killed before that forgets the newest
    before = cluster.pids()
    cluster.kill_daemon("slurmctld")
    assert cluster.script("status", check=False).returncode == 3
    assert "restarted slurmctld" in cluster.up().stderr
    after = cluster.pids()
    assert after.pop("slurmctld") != before.pop("slurmctld")
    assert after == before
    assert (cluster.field(finished, "ExitCode"), cluster.field(running, "JobState")) == ("3:0", "RUNNING")


def test_a_stale_state_is_healed_and_strangers_with_its_pids_live(cluster: SlurmCluster) -> None:
    cluster.up("--nodes=2", "--no-accounting")
    kill_all(cluster)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        for file in [*(cluster.state / "run").glob("*.pid"), cluster.state / "munge/munged.pid"]:
            file.write_text(f"{stranger.pid}\n")
        assert cluster.script("status", check=False).returncode == 3
        cluster.up()
        assert len(cluster.status()["nodes"]) == 2, "options not given are remembered"
        cluster.wait(cluster.submit("true"), "COMPLETED")
        cluster.down()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_failed_start_says_why_and_leaves_nothing_running(cluster: SlurmCluster) -> None:
    cluster.up("--no-accounting")
    cluster.down()
    (cluster.state / "etc/slurm.conf").unlink()
    (cluster.state / "munge/key").write_text("short")
    done = cluster.script("up", check=False)
    assert done.returncode == 1
    assert "Keyfile must be at least" in done.stderr
    assert "munged didn't start" in done.stderr
    assert cluster.leftovers(cluster.name) == []


# --- several clusters -----------------------------------------------------------------------------------------------


def test_two_clusters_side_by_side(shared: SlurmCluster, cluster: SlurmCluster) -> None:
    before = shared.pids()
    cluster.up("--no-accounting")
    assert cluster.name != shared.name
    jobs = [(one, one.submit("sleep 1; exit 2")) for one in (shared, cluster)]
    for one, job in jobs:
        one.wait(job, "FAILED")
    longer = shared.submit("sleep 2")
    shared.wait(longer, "RUNNING")
    cluster.down()
    assert shared.pids() == before
    assert shared.wait(longer, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"


def test_clusters_that_start_at_the_same_time_all_come_up(slurm_host: None) -> None:
    with cluster_place() as first, cluster_place() as second:
        with ThreadPoolExecutor() as threads:
            list(threads.map(SlurmCluster.up, (first, second)))
        assert all(one.status()["up"] for one in (first, second))
        jobs = [(one, one.submit("true")) for one in (first, second)]
        for one, job in jobs:
            one.wait(job, "COMPLETED")


def test_a_name_in_use_is_refused(shared: SlurmCluster, cluster: SlurmCluster) -> None:
    done = cluster.script("up", "--name", shared.name, check=False)
    assert done.returncode == 1
    assert "choose another --name" in done.stderr


# --- the end --------------------------------------------------------------------------------------------------------


# Ignores being asked to end, and leaves a process that no longer is its child.
STUBBORN = "trap '' TERM; (setsid sleep 300 &); srun --overlap sleep 300; sleep 300"


@pytest.mark.parametrize(
    "options", [("--gpus=1", "--ssh"), ("--no-cgroups", "--no-accounting")], ids=["everything", "no-cgroups"]
)
def test_down_leaves_nothing(cluster: SlurmCluster, options: tuple[str, ...]) -> None:
    cluster.up(*options)
    name = cluster.name
    jobs = [cluster.submit(STUBBORN), cluster.submit("sleep 300", "--exclusive")]
    cluster.wait(jobs[0], "RUNNING")
    cluster.wait(jobs[1], "PENDING")
    if "--ssh" in options:
        cluster.ssh("setsid sleep 200 >/dev/null 2>&1 &")
    time.sleep(0.5)
    left = cluster.leftovers(name)
    assert any(line.endswith(": sleep") for line in left)
    cluster.down()
    assert cluster.leftovers(name) == []
    assert "cluster" in cluster.down().stderr, "a second down is fine"

    cluster.up()
    assert [cluster.field(job, "JobState") for job in jobs] == ["CANCELLED"] * 2, "the memory of jobs survives a down"
    assert bool(cluster.status()["ssh"]) == ("--ssh" in options), "options not given are remembered"
    cluster.down("--purge")
    assert not cluster.state.exists()
    assert cluster.leftovers(name) == []
    cluster.down("--purge")


def test_down_after_a_crash_leaves_nothing(cluster: SlurmCluster) -> None:
    cluster.up("--ssh")
    name = cluster.name
    cluster.wait(cluster.submit(STUBBORN), "RUNNING")
    kill_all(cluster)
    cluster.down("--purge")
    assert cluster.leftovers(name) == []


def test_without_cgroups_memory_is_polled(cluster: SlurmCluster) -> None:
    """In a mount namespace of its own the scripts see a host that mounts no cgroups; nothing changes outside."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "bash",
            "-c",
            'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$0" "$@"',
            HERE / "up",
            cluster.state,
            "--no-accounting",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no usable cgroups" in done.stderr
    job = cluster.submit("python3 -c 'x = bytearray(300 << 20); import time; time.sleep(60)'", "--mem=50")
    assert cluster.wait(job, "FAILED", "COMPLETED") == "FAILED"


# --- wrong use ------------------------------------------------------------------------------------------------------


def test_paths_that_slurm_cannot_use_are_refused(cluster: SlurmCluster) -> None:
    done = SlurmCluster(cluster.state.with_name("with blank")).script("up", check=False)
    assert done.returncode == 2
    assert "Slurm can't use a path with blanks" in done.stderr


def test_a_directory_of_somebody_else_is_neither_taken_nor_purged(cluster: SlurmCluster) -> None:
    cluster.state.mkdir()
    (cluster.state / "thesis.txt").write_text("irreplaceable")
    assert "in use for something else" in cluster.script("up", check=False).stderr
    assert "not removing it" in cluster.script("down", "--purge", check=False).stderr
    assert (cluster.state / "thesis.txt").exists()
    shutil.rmtree(cluster.state)


def test_a_directory_closed_to_jobs_is_refused(cluster: SlurmCluster) -> None:
    cluster.state.parent.chmod(0o700)
    done = cluster.script("up", check=False)
    assert done.returncode == 1
    assert "closed to others" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_root_one_line_says_so(script: str, cluster: SlurmCluster, slurm_account: str) -> None:
    copy = cluster.state.parent / "scripts"
    shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns("tests"))
    done = subprocess.run(
        [copy / script, cluster.state],
        user=slurm_account,
        group=slurm_account,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "must run as root" in done.stderr


@pytest.mark.parametrize(
    ("lacking", "remedy"),
    [
        ({"slurmctld"}, "apt-get install -y slurm-wlm munge"),
        ({"slurmdbd"}, "apt-get install -y slurmdbd mariadb-server, or go without: --no-accounting"),
        ({"sshd"}, "apt-get install -y openssh-server"),
    ],
)
def test_missing_packages_are_named_with_the_command_that_installs_them(
    cluster: SlurmCluster, lacking: set[str], remedy: str
) -> None:
    tools = cluster.state.parent / "bin"
    tools.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if program.name not in lacking and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    done = subprocess.run(
        [HERE / "up", cluster.state, "--ssh"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"missing {lacking.pop()}" in done.stderr
    assert remedy in done.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--gpus=-1"], "--gpus needs a number, not '-1'"),
        (["--min-job-age", "0"], "--min-job-age needs a positive number, not '0'"),
        (["--epilog", "epilog.sh"], "--epilog 'epilog.sh': an absolute path is needed"),
    ],
)
def test_wrong_options_are_named(cluster: SlurmCluster, options: list[str], complaint: str) -> None:
    done = cluster.script("up", *options, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches(script: str) -> None:
    done = subprocess.run([HERE / script, "--help"], capture_output=True, text=True, check=True)
    assert f"usage: {script} STATE_DIR" in done.stdout
    assert "Exit codes" in done.stdout
