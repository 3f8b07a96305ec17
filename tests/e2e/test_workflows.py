"""What workflows mean, executed: each row of the table runs on the local scheduler and on real Slurm, with the same result."""

from __future__ import annotations

import asyncio
import subprocess
import time
from importlib.resources import files

import pytest
import yaml
from deepsquare.grid.supervisor.schedulers.base import Phase, RefusedError
from deepsquare.grid.supervisor.schedulers.local.scheduler import Local

from tests.batch import Result, Runner
from tests.workflows import ROWS, UNTIL_SIGNALLED, Row, items, launch, numbers, own_lines, run, until_up

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
async def results(runner: Runner) -> dict[str, Result]:
    """All rows, run."""
    submitted = {
        row.name: await runner.submit(row.steps, tasks=row.tasks, modules=row.modules, **row.fields) for row in ROWS
    }
    states = await runner.wait(*(job_id for job_id, _ in submitted.values()))
    return {
        name: Result(states[job_id].phase, states[job_id].exit_code, own_lines(output.read_text()))
        for name, (job_id, output) in submitted.items()
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_workflow_does_what_it_says(row: Row, results: dict[str, Result]) -> None:
    result = results[row.name]
    order = sorted if row.in_any_order else list
    assert row.prints is None or order(result.lines) == order(row.prints)
    assert (result.code, result.phase) == (row.code, Phase.FAILED if row.code else Phase.COMPLETED)


async def test_what_is_cancelled_is_caught_and_tidied_up(runner: Runner) -> None:
    steps = [
        {
            "finally": [run("echo outer")],
            "steps": [
                items(
                    *("a", "b"),
                    parallel=True,
                    steps=[
                        {
                            "catch": [run('echo "$item caught"')],
                            "finally": [run('echo "$item finally"')],
                            **run("trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"),
                        }
                    ],
                ),
                run("echo never"),
            ],
        },
        run("echo never"),
    ]
    job_id, output = await runner.submit(steps, tasks=2)
    await runner.prints(output, "up\nup\n")
    await runner.scheduler.cancel(job_id)
    states = await runner.wait(job_id)
    assert states[job_id].phase is Phase.CANCELLED
    lines = own_lines(output.read_text())
    assert sorted(lines) == sorted(["up", "up", "a caught", "b caught", "a finally", "b finally", "outer"])
    assert lines[-1] == "outer"


async def test_a_step_that_stays_leaves_time_for_what_follows(runner: Runner) -> None:
    stays = run("trap 'echo told' TERM; echo up; while :; do sleep 0.1; done")
    job_id, output = await runner.submit([stays | {"catch": [run("echo caught")], "finally": [run("echo tidy")]}])
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    result = await runner.result(job_id, output)
    assert (result.phase, result.lines) == (Phase.CANCELLED, ["up", "told", "caught", "tidy"])


async def test_a_loop_with_more_turns_than_places_can_be_cancelled(runner: Runner) -> None:
    loop = numbers(1, 50, parallel=True, steps=[run("echo up; sleep 2")])
    job_id, output = await runner.submit([{"finally": [run("echo tidy")], "steps": [loop]}], tasks=2)
    await runner.prints(output, "up\nup\n")
    await runner.scheduler.cancel(job_id)
    result = await runner.result(job_id, output)
    assert (result.phase, result.lines[-1]) == (Phase.CANCELLED, "tidy")


async def test_what_is_launched_hears_of_the_jobs_end(runner: Runner) -> None:
    steps = [launch(run(UNTIL_SIGNALLED.format("TERM"))), {"finally": [run("echo f")], **run("echo up; sleep 600")}]
    job_id, output = await runner.submit(steps, tasks=2)
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    await runner.wait(job_id)
    assert sorted(own_lines(output.read_text())) == ["f", "got TERM", "up"]


async def test_steps_have_the_gpus_that_they_ask_for(runner: Runner) -> None:
    look = 'echo "${CUDA_VISIBLE_DEVICES:-none}"'
    steps = [
        # If it had them all, the others would wait for it for ever.
        launch(run(UNTIL_SIGNALLED.format("TERM"), resources={"gpusPerTask": 1})),
        until_up("TERM"),
        run(look),
        run(f"{look} | tr -d ',' | wc -c", resources={"gpusPerTask": 1}),
    ]
    if isinstance(runner.scheduler, Local):
        with pytest.raises(RefusedError, match="GPUs"):
            await runner.submit(steps, tasks=2, gpus=2)
        return
    job_id, output = await runner.submit(steps, tasks=2, gpus=2)
    await runner.wait(job_id)
    assert own_lines(output.read_text()) == ["parent", "none", "2", "got TERM"]


async def test_programs_of_mpi_find_each_other(runner: Runner) -> None:
    template = yaml.safe_load(files("deepsquare.cli").joinpath("templates", "mpi.yaml").read_text())
    tasks = 2 if isinstance(runner.scheduler, Local) else 4
    for step in template["steps"]:
        step["run"]["resources"] = {"tasks": min(tasks, step["run"].get("resources", {}).get("tasks", 1))}
    result = await runner.run(*template["steps"], tasks=tasks, mem_mb=300)
    if isinstance(runner.scheduler, Local):
        assert result.code == 1
        assert "the local scheduler has no MPI" in result.text
    else:
        assert (result.code, result.lines) == (0, ["4 ranks, sum 6"])


async def test_out_of_time_is_tidied_up_too(runner: Runner) -> None:
    steps = [{"finally": [run('echo "tidy $(ls a)"')], **run("touch a; echo up; sleep 600")}]
    job_id, output = await runner.submit(steps, minutes=1)
    states = await runner.wait(job_id)
    assert states[job_id].phase is Phase.TIMED_OUT
    assert own_lines(output.read_text()) == ["up", "tidy a"]


async def test_nothing_is_left_of_any_of_them(runner: Runner, results: dict[str, Result]) -> None:
    assert [path.name for path in runner.shared.iterdir()] == ["started"]
    until = time.monotonic() + 30
    while subprocess.run(["pgrep", "-u", str(runner.account.uid)], check=False, capture_output=True).returncode == 0:
        assert time.monotonic() < until
        await asyncio.sleep(0.2)
