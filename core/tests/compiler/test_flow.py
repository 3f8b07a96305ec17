"""Control flow: its text is clean and the same each time, and nothing of a customer's in it is executed by mistake."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from deepsquare.compiler import compile_workflow
from deepsquare.workflow import from_dict
from deepsquare.workflow.modules import resolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workflows import ROWS, Row, fetched

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(["'", '"', "\n", "$(touch x)", "`touch x`", "\\", "*", "~", ";", "END_OF_FILE_0\n", "é"])
).map("".join)


def script_of(row: Row) -> str:
    resources = {"tasks": row.tasks, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0}
    workflow = from_dict({"resources": resources, "steps": row.steps} | row.fields)
    return compile_workflow(resolve(workflow, fetched(row.modules)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_scripts_are_clean_and_the_same_each_time(row: Row, tmp_path: Path) -> None:
    script = script_of(row)
    assert script == script_of(row)
    path = tmp_path / "script"
    path.write_text(script)
    for command in (["bash", "-n", path], ["shellcheck", "--norc", "--severity=style", path]):
        checked = subprocess.run(command, check=False, capture_output=True, text=True)
        assert checked.stdout + checked.stderr == ""


@settings(max_examples=25, deadline=None)
@given(items=st.lists(TEXTS, max_size=3))
def test_any_item_arrives_byte_for_byte(items: list[str], job, new_node) -> None:
    node = new_node()
    turn = {"run": {"command": "printf '%s\\0' \"$item\""}}
    ended = node.run(job(steps=[{"for": {"parallel": False, "items": items, "steps": [turn]}}]))
    assert (ended.code, ended.errors) == (0, b"")
    assert ended.output.decode() == "".join(f"{item}\0" for item in items)
    assert not list(node.scratch.glob("x"))


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_turn_that_is_killed_fails_the_loop_and_holds_up_none(tasks: int, job, node) -> None:
    # As the kernel does when memory is short. The double of srun is the command's process; the turn has started it.
    turn = {
        "run": {
            "command": 'echo "$item"; [ "$item" != b ] || { kill -s KILL "$PPID"; exit; }',
            "resources": {"tasks": 1},
        }
    }
    resources = {"tasks": tasks, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0}
    loop = {"for": {"parallel": True, "items": ["a", "b", "c"], "steps": [turn]}}
    ended = node.run(
        job(resources=resources, steps=[loop, {"run": {"command": "echo later", "resources": {"tasks": 1}}}])
    )
    assert ended.code == 137
    assert sorted(ended.text.split()) == ["a", "b", "c"]


def test_loops_of_more_turns_than_a_pipe_has_room_for_begin(job, node) -> None:
    resources = {"tasks": 14_000, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}
    turn = {"run": {"command": "echo begun; exec sleep 60", "resources": {"tasks": 1}}}
    loop = {"for": {"parallel": True, "range": {"begin": 1, "end": 14_000}, "steps": [turn]}}
    process = node.start(job(resources=resources, steps=[loop]))
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
