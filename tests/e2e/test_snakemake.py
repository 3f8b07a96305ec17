"""Snakemake pipelines through the grid: each job bought on chain and run by Slurm as another account."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import BIN, REPOSITORY, Grid

pytestmark = pytest.mark.slurm

EXAMPLE = REPOSITORY / "plugins/snakemake/src/snakemake_executor_plugin_deepsquare/examples/variants"
FAILED, INTERRUPTED = 1, 1


class Pipeline:
    """A working directory that only the submitter can enter, and a storage folder that the jobs' account owns."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self.grid, self.work, self.storage = grid, folder / "work", folder / "storage"
        folder.mkdir(mode=0o711)
        self.work.mkdir(mode=0o700)
        self.storage.mkdir(mode=0o700)
        account = grid.json("grid", "status", "--state", grid.state)["account"]
        shutil.chown(self.storage, account, account)

    def command(self, *options: str | Path) -> list[str]:
        words = [BIN / "snakemake", "--executor", "deepsquare", "--jobs", "8", "--nocolor"]
        words += ["--default-storage-provider", "fs", "--default-storage-prefix", self.storage, *options]
        return [str(word) for word in words]

    def run(
        self, *options: str | Path, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.grid.run(*self.command(*options), check=check, cwd=self.work, env=env)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(),
            cwd=self.work,
            env=self.grid.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def pipeline(grid: Grid, request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline(grid, grid.state / request.node.name)


def jobs_of(grid: Grid, since: int) -> list[dict[str, object]]:
    return list(grid.json("job", "list"))[since:]


def test_the_example_gives_the_records_of_a_plain_local_run(grid: Grid, pipeline: Pipeline, runtime: Path) -> None:
    before = len(grid.json("job", "list"))
    shutil.copytree(EXAMPLE, pipeline.work, dirs_exist_ok=True)
    pipeline.work.chmod(0o700)  # copytree gives it the mode of the example
    local = pipeline.work.parent / "local"
    shutil.copytree(EXAMPLE, local)
    (pipeline.work / "canary").write_text("only for the submitter\n")
    config = ["--config", "samples=[alder, birch]", "read_pairs=3000", "repeat_seconds=0"]

    said = pipeline.run(*config, f"canary={pipeline.work / 'canary'}").stderr
    grid.run(
        runtime / "bin" / "snakemake", "--cores", "2", *config, cwd=local, env={"PATH": f"{runtime}/bin:/usr/bin:/bin"}
    )

    results = pipeline.storage / "results"
    compared = grid.run(EXAMPLE / "compare", local / "results/variants.vcf.gz", results / "variants.vcf.gz").stdout
    assert re.fullmatch(r"variants: 0 private to the local run, 0 private to the grid run, [1-9]\d+ shared\n", compared)
    assert (results / "canary.txt").read_text() == "denied\n"
    assert (results / "variants.png").read_bytes().startswith(b"\x89PNG")

    jobs = jobs_of(grid, before)
    assert len(jobs) == 13
    assert {job["status"] for job in jobs} == {"FINISHED"}
    table = said[said.index("what the jobs took and cost") :]
    for job in jobs:
        row = next(line.split() for line in table.splitlines() if f" {hex(int(str(job['id']), 16))} " in line)
        assert row[0] == job["labels"]["rule"]  # type: ignore[index]
        assert Decimal(row[-3]) == Decimal(row[-2]) + Decimal(row[-1])
    assert "13 jobs" in table
    # Nothing of the pipeline is on chain in clear.
    assert not {job["name"] for job in jobs} & {job["labels"]["rule"] for job in jobs}  # type: ignore[index]
    (run,) = {job["labels"]["run"] for job in jobs}  # type: ignore[index]
    (costs,) = [group for group in grid.json("cost", "--by", "run")["groups"] if group["name"] == run]
    assert costs["jobs"] == len(jobs)

    again = pipeline.run(*config, f"canary={pipeline.work / 'canary'}").stderr
    assert "Nothing to be done" in again
    assert len(jobs_of(grid, before)) == 13


def test_jobs_work_in_their_own_scratch_and_get_variables_privately(grid: Grid, pipeline: Pipeline) -> None:
    before = len(grid.json("job", "list"))
    (pipeline.work / "Snakefile").write_text(
        """
envvars: "TOKEN"
rule where:
    output: "where.txt"
    resources: mem_mb=200, runtime=1
    shell: 'pwd > {output}; printf "%s\\n" "$TOKEN" >> {output}'
"""
    )
    secret = "s3cret $(id) 'quoted' \"twice\""
    said = pipeline.run("--directory", pipeline.work, env={"TOKEN": secret}).stderr
    directory, token = (pipeline.storage / "where.txt").read_text().splitlines()
    assert directory.startswith(str(grid.state / "jobs"))
    assert token == secret
    (job,) = jobs_of(grid, before)
    assert secret not in said + "\n".join(grid.logs(str(job["id"])))


def test_a_failed_job_says_why_with_its_last_lines_and_the_others_still_count(grid: Grid, pipeline: Pipeline) -> None:
    before = len(grid.json("job", "list"))
    (pipeline.work / "Snakefile").write_text(
        """
rule all:
    input: "good.txt", "bad.txt"
    localrule: True
rule good:
    output: "good.txt"
    resources: mem_mb=200, runtime=1
    shell: "echo good > {output}"
rule bad:
    output: "bad.txt"
    resources: mem_mb=200, runtime=1
    shell: "echo the disk is on fire >&2; exit 3"
"""
    )
    result = pipeline.run("--keep-going", check=False)
    assert result.returncode == FAILED
    jobs = {job["labels"]["rule"]: job for job in jobs_of(grid, before)}  # type: ignore[index]
    assert (jobs["good"]["status"], jobs["bad"]["status"]) == ("FINISHED", "FAILED")
    number = hex(int(str(jobs["bad"]["id"]), 16))
    assert f"Job {number} ended as FAILED with exit code 1" in result.stderr
    assert "the disk is on fire" in result.stderr
    assert f"deepsquare job logs {number}" in result.stderr
    assert (pipeline.storage / "good.txt").read_text() == "good\n"


def test_a_job_too_large_for_the_grid_fails_with_the_reason_and_buys_nothing(grid: Grid, pipeline: Pipeline) -> None:
    before = len(grid.json("job", "list"))
    (pipeline.work / "Snakefile").write_text(
        """
rule large:
    output: "large.txt"
    threads: 4096
    resources: mem_mb=200, runtime=1
    shell: "true"
"""
    )
    result = pipeline.run("--max-threads", "4096", check=False)
    assert result.returncode == FAILED
    assert "no provider of this grid can run 1 task(s) of 4096 CPU(s)" in result.stderr
    assert "Traceback" not in result.stderr
    assert not jobs_of(grid, before)


def test_an_interrupt_cancels_every_job_and_the_rest_comes_back(grid: Grid, pipeline: Pipeline) -> None:
    before = len(grid.json("job", "list"))
    (pipeline.work / "Snakefile").write_text(
        """
rule all:
    input: expand("slow{n}.txt", n=range(4))
    localrule: True
rule slow:
    output: "slow{n}.txt"
    resources: mem_mb=200, runtime=5
    shell: "sleep 240"
"""
    )
    process = pipeline.start()
    assert process.stderr is not None
    running = 0
    for line in process.stderr:
        running += ": RUNNING at" in line
        if running == 2:
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == INTERRUPTED
    assert "cancelling 4 job(s)" in said
    jobs = jobs_of(grid, before)
    assert [(job["status"], job["error"]) for job in jobs] == [("CANCELLED", "cancelled")] * 4
    for job in jobs:
        assert Decimal(str(job["billed"])) + Decimal(str(job["refunded"])) == Decimal(str(job["locked"]))
        assert Decimal(str(job["refunded"])) > 0


def test_without_a_grid_one_line_says_what_to_do(grid: Grid, pipeline: Pipeline) -> None:
    (pipeline.work / "Snakefile").write_text('rule one:\n    output: "one.txt"\n    shell: "true"\n')
    result = pipeline.run(check=False, env={"DEEPSQUARE_CONTEXT": "nowhere"})
    assert result.returncode == FAILED
    assert "there is no context 'nowhere'" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(grid.cli("context", "show", "--json").stdout)["name"] == "local"
