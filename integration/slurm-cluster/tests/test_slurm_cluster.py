"""The private Slurm cluster, from up to down, on this host. Every cluster of these tests has its own name and state."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
SCRIPTS = ["up", "status", "down"]
TOOLS = ["munged", "mungekey", "slurmctld", "slurmd", "sbatch"]

pytestmark = pytest.mark.slurm


@dataclass
class Cluster:
    state: Path

    def script(self, name: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs up, status or down; what it said is in the failure."""
        done = subprocess.run(
            [HERE / name, self.state, *options], capture_output=True, text=True, timeout=90, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.script("up", *options)

    def down(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.script("down", *options)

    def status(self) -> dict:
        return json.loads(self.script("status", "--json", check=False).stdout)

    def pids(self) -> dict[str, int]:
        return {daemon["name"]: daemon["pid"] for daemon in self.status()["daemons"]}

    @property
    def conf(self) -> Path:
        return self.state / "etc/slurm.conf"

    @property
    def name(self) -> str:
        settings = dict(line.split("=", 1) for line in (self.state / "etc/cluster.settings").read_text().splitlines())
        return settings["NAME"]

    def slurm(self, *command: str, cwd: str | Path = "/", user: str | None = None) -> str:
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "SLURM_CONF": str(self.conf)},
            cwd=cwd,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, script: str, *options: str, **how) -> str:
        return self.slurm("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}", **how)

    def field(self, job: str, name: str) -> str:
        return dict(
            part.split("=", 1) for part in self.slurm("scontrol", "-o", "show", "job", job).split() if "=" in part
        )[name]

    def wait(self, job: str, *states: str, seconds: float = 20) -> str:
        end = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            assert time.monotonic() < end, f"job {job} is {state}, not {states}"
            time.sleep(0.05)
        return state

    def leftovers(self, name: str) -> list[str]:
        """Processes, mounts and cgroups that mention this cluster."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            for file in ("cmdline", "environ"):
                try:
                    command, content = (entry / "comm").read_text().strip(), (entry / file).read_bytes()
                except OSError:
                    continue
                if str(self.state).encode() in content:
                    found.append(f"{entry}/{file}: {command}")
        found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.state) in line]
        found += [root for root, _, _ in os.walk("/sys/fs/cgroup") if f"{name}-" in root]
        return found


def wait_until_gone(pid: int) -> None:
    """Without an init that reaps, a killed daemon stays as a zombie for a while: that is gone enough."""
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def host() -> None:
    if os.getuid() != 0:
        pytest.skip("a Slurm cluster needs root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} missing): apt-get install -y slurm-wlm munge")


@pytest.fixture(scope="session")
def account() -> Iterator[str]:
    """An account without any rights, as those that run jobs."""
    name = f"sctest-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", "--home-dir=/", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


def make_cluster() -> Iterator[Cluster]:
    # Not tmp_path: the directories above it are closed to the accounts that run jobs.
    directory = Path(tempfile.mkdtemp(prefix="sct-", dir="/tmp"))
    directory.chmod(0o755)
    made = Cluster(directory / "c")
    try:
        yield made
    finally:
        made.down("--purge")
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shared(host: None) -> Iterator[Cluster]:
    """One cluster for the tests that leave it running as they found it."""
    for cluster in make_cluster():
        cluster.up()
        yield cluster


@pytest.fixture
def cluster(host: None) -> Iterator[Cluster]:
    yield from make_cluster()


# --- a running cluster ----------------------------------------------------------------------------------------------


def test_up_prints_the_configuration_and_leaves_idle_nodes(cluster: Cluster) -> None:
    started = time.monotonic()
    done = cluster.up("--nodes", "2")
    assert time.monotonic() - started < 10
    assert done.stdout == f"SLURM_CONF={cluster.conf}\n"
    assert cluster.slurm("sinfo", "-h", "-N", "-o", "%P %T").splitlines() == ["main* idle"] * 2


def test_second_up_changes_nothing(shared: Cluster) -> None:
    before = shared.pids()
    done = shared.up()
    assert "already up" in done.stderr
    assert done.stdout == f"SLURM_CONF={shared.conf}\n"
    assert shared.pids() == before


def test_another_shape_is_refused_while_running(shared: Cluster) -> None:
    done = shared.script("up", "--nodes", "7", check=False)
    assert done.returncode == 1
    assert "NODES=1, not 7" in done.stderr


def test_status_tells_daemons_nodes_and_partitions(shared: Cluster) -> None:
    status = shared.status()
    assert (status["up"], status["name"], status["slurm_conf"]) == (True, shared.name, str(shared.conf))
    names = ["munged", "mariadbd", "slurmdbd", "slurmctld", f"slurmd/{shared.name}-n1"]
    assert [daemon["name"] for daemon in status["daemons"]] == names
    assert all(Path(f"/proc/{daemon['pid']}").exists() for daemon in status["daemons"])
    assert [(node["state"], node["cpus"]) for node in status["nodes"]] == [("idle", os.cpu_count())]
    assert status["partitions"] == [{"name": "main", "state": "up", "nodes": 1}]


def test_job_of_an_unprivileged_account_keeps_its_exit_code(shared: Cluster, account: str) -> None:
    workdir = shared.state.parent / "job"
    workdir.mkdir()
    shutil.chown(workdir, account, account)
    script = f'id -un; cat {shared.state}/munge/key; pwd; echo "out of $SLURM_CPUS_ON_NODE"; exit 7'
    job = shared.submit(script, f"--output={workdir}/out", "--ntasks=1", cwd=workdir, user=account)
    assert shared.wait(job, "FAILED", "COMPLETED") == "FAILED"
    assert shared.field(job, "ExitCode") == "7:0"
    user, denied, cwd, cpus = (workdir / "out").read_text().splitlines()
    assert (user, cwd, cpus) == (account, str(workdir), "out of 1")
    assert "Permission denied" in denied


def test_turn_round_is_about_a_second(shared: Cluster) -> None:
    started = time.monotonic()
    shared.wait(shared.submit("true"), "COMPLETED")
    assert time.monotonic() - started < 5


def test_memory_is_enforced_by_the_kernel(shared: Cluster) -> None:
    if shared.status()["cgroups"] == "none":
        pytest.skip("this host has no usable cgroups, so the kernel holds no job to its memory")
    job = shared.submit("python3 -c 'bytearray(300 << 20)'", "--mem=50")
    assert shared.wait(job, "OUT_OF_MEMORY", "FAILED", "COMPLETED") == "OUT_OF_MEMORY"


def test_finished_jobs_stay_known_and_are_in_the_completion_log(shared: Cluster) -> None:
    job = shared.submit("exit 4", "--job-name=kept")
    shared.wait(job, "FAILED")
    assert shared.slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%j %T") == "kept FAILED"
    logged = shared.slurm("sacct", "-c", "-n", "-P", "-j", job, "-o", "jobid,jobname,state,exitcode")
    assert logged == f"{job}|kept|FAILED|4:0"
    assert logged == shared.slurm(
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


def test_everything_listens_on_loopback_only(shared: Cluster) -> None:
    if "NoInAddrAny" not in shared.conf.read_text():
        pytest.skip("the name of this host doesn't mean 127.0.0.1, so Slurm can't bind to loopback alone")
    port = int(next(line for line in shared.conf.read_text().splitlines() if "SlurmctldPort" in line).split("=")[1])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert f"0100007F:{port:04X}" in listening
    assert f"0100007F:{port + 1:04X}" in listening


def test_the_state_is_open_to_jobs_and_the_keys_are_not(shared: Cluster) -> None:
    def mode(path: str) -> int:
        return (shared.state / path).stat().st_mode & 0o777

    assert {
        path: mode(path) for path in ("", "etc", "log", "munge", "spool", f"spool/{shared.name}-n1")
    } == dict.fromkeys(("", "etc", "log", "munge", "spool", f"spool/{shared.name}-n1"), 0o755)
    assert (mode("munge/key"), mode("state")) == (0o400, 0o700)
    assert (shared.state / f"spool/{shared.name}-n1").stat().st_uid == 0


def test_pretended_cpus_run_many_jobs_at_once(cluster: Cluster) -> None:
    cluster.up("--nodes=2", "--cpus=16")
    jobs = [cluster.submit("sleep 30") for _ in range(32)]
    for job in jobs:
        cluster.wait(job, "RUNNING")


# --- accidents ------------------------------------------------------------------------------------------------------


def test_up_heals_a_killed_controller_under_a_running_job(cluster: Cluster) -> None:
    cluster.up()
    finished = cluster.submit("exit 3")
    running = cluster.submit("sleep 60")
    cluster.wait(finished, "FAILED")
    cluster.wait(running, "RUNNING")
    time.sleep(5)  # Slurm saves its jobs every few seconds; a controller killed before that forgets the newest
    before = cluster.pids()
    os.kill(before["slurmctld"], signal.SIGKILL)
    wait_until_gone(before["slurmctld"])
    assert cluster.script("status", check=False).returncode == 3
    assert "restarted slurmctld" in cluster.up().stderr
    after = cluster.pids()
    assert after.pop("slurmctld") != before.pop("slurmctld")
    assert after == before
    assert (cluster.field(finished, "ExitCode"), cluster.field(running, "JobState")) == ("3:0", "RUNNING")


def test_a_stale_state_is_healed_and_strangers_with_its_pids_live(cluster: Cluster) -> None:
    cluster.up("--nodes=2")
    first = cluster.pids()
    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    for pid in first.values():
        wait_until_gone(pid)
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


def test_a_failed_start_says_why_and_leaves_nothing_running(cluster: Cluster) -> None:
    cluster.up()
    cluster.down()
    (cluster.state / "etc/slurm.conf").unlink()
    (cluster.state / "munge/key").write_text("short")
    done = cluster.script("up", check=False)
    assert done.returncode == 1
    assert "Keyfile must be at least" in done.stderr
    assert "munged didn't start" in done.stderr
    assert cluster.leftovers(cluster.name) == []


# --- several clusters -----------------------------------------------------------------------------------------------


def test_two_clusters_side_by_side(shared: Cluster, cluster: Cluster) -> None:
    before = shared.pids()
    cluster.up()
    assert cluster.name != shared.name
    jobs = [(one, one.submit("sleep 1; exit 2")) for one in (shared, cluster)]
    for one, job in jobs:
        one.wait(job, "FAILED")
    longer = shared.submit("sleep 2")
    shared.wait(longer, "RUNNING")
    cluster.down()
    assert shared.pids() == before
    assert shared.wait(longer, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"


def test_a_name_in_use_is_refused(shared: Cluster, cluster: Cluster) -> None:
    done = cluster.script("up", "--name", shared.name, check=False)
    assert done.returncode == 1
    assert "choose another --name" in done.stderr


# --- the end --------------------------------------------------------------------------------------------------------


# Ignores being asked to end, and leaves a process that no longer is its child.
STUBBORN = "trap '' TERM; (setsid sleep 300 &); srun --overlap sleep 300; sleep 300"


@pytest.mark.parametrize("options", [(), ("--no-cgroups",)], ids=["cgroups", "no-cgroups"])
def test_down_leaves_nothing(cluster: Cluster, options: tuple[str, ...]) -> None:
    cluster.up(*options)
    name = cluster.name
    jobs = [cluster.submit(STUBBORN), cluster.submit("sleep 300", "--exclusive")]
    cluster.wait(jobs[0], "RUNNING")
    cluster.wait(jobs[1], "PENDING")
    time.sleep(0.5)
    assert any(line.endswith(": sleep") for line in cluster.leftovers(name))
    cluster.down()
    assert cluster.leftovers(name) == []
    assert "cluster" in cluster.down().stderr, "a second down is fine"

    cluster.up()
    assert [cluster.field(job, "JobState") for job in jobs] == ["CANCELLED"] * 2, "the memory of jobs survives a down"
    cluster.down("--purge")
    assert not cluster.state.exists()
    assert cluster.leftovers(name) == []
    cluster.down("--purge")


def test_down_after_a_crash_leaves_nothing(cluster: Cluster) -> None:
    cluster.up()
    name = cluster.name
    cluster.wait(cluster.submit(STUBBORN), "RUNNING")
    for pid in cluster.pids().values():
        os.kill(pid, signal.SIGKILL)
    cluster.down("--purge")
    assert cluster.leftovers(name) == []


def test_without_cgroups_memory_is_polled(cluster: Cluster) -> None:
    """In a mount namespace of its own the scripts see a host that mounts no cgroups; nothing changes outside."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "bash",
            "-c",
            'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$0" "$1"',
            HERE / "up",
            cluster.state,
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


def test_paths_that_slurm_cannot_use_are_refused(host: None, cluster: Cluster) -> None:
    cluster.state = cluster.state.with_name("with blank")
    done = cluster.script("up", check=False)
    cluster.state = cluster.state.with_name("c")
    assert done.returncode == 2
    assert "Slurm can't use a path with blanks" in done.stderr


def test_a_directory_of_somebody_else_is_neither_taken_nor_purged(cluster: Cluster) -> None:
    cluster.state.mkdir()
    (cluster.state / "thesis.txt").write_text("irreplaceable")
    assert "in use for something else" in cluster.script("up", check=False).stderr
    assert "not removing it" in cluster.script("down", "--purge", check=False).stderr
    assert (cluster.state / "thesis.txt").exists()
    shutil.rmtree(cluster.state)


def test_a_directory_closed_to_jobs_is_refused(cluster: Cluster) -> None:
    cluster.state.parent.chmod(0o700)
    done = cluster.script("up", check=False)
    assert done.returncode == 1
    assert "closed to others" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_root_one_line_says_so(script: str, cluster: Cluster, account: str) -> None:
    copy = cluster.state.parent / "scripts"
    shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns("tests"))
    done = subprocess.run(
        [copy / script, cluster.state],
        user=account,
        group=account,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "must run as root" in done.stderr


def test_missing_packages_are_named_with_the_command_that_installs_them(cluster: Cluster) -> None:
    tools = cluster.state.parent / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "id", "realpath"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [HERE / "up", cluster.state], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install -y slurm-wlm munge" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches(script: str) -> None:
    done = subprocess.run([HERE / script, "--help"], capture_output=True, text=True, check=True)
    assert f"usage: {script} STATE_DIR" in done.stdout
    assert "Exit codes" in done.stdout
