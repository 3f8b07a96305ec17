"""The result channel in jobs as they run on a node."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from deepsquare.workflow import ResultError, ResultReader, from_dict, new_tag, with_result

TAG = new_tag()


def result_of(output: bytes) -> tuple[bytes | None, list[bytes]]:
    """The result in a job's output, and the lines that people see."""
    reader = ResultReader(TAG)
    shown = [line for line in output.split(b"\n") if line and not reader.feed(line)]
    return reader.result, shown


@pytest.fixture
def returning(job):
    """A job as it is submitted when its result is wanted."""
    return lambda *commands, **fields: with_result(from_dict(job(*commands, **fields)), TAG).to_dict()


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_what_steps_write_on_the_host_is_the_result(shell: str, node, returning) -> None:
    ended = node.run(
        returning(
            {"command": 'echo one; printf 1 >"$DEEPSQUARE_RESULT"', "shell": shell},
            {"command": 'printf 2 >>"$DEEPSQUARE_RESULT"; printf two', "shell": shell, "workDir": "/"},
        )
    )
    assert (ended.code, ended.errors) == (0, b"")
    assert result_of(ended.output) == (b"12", [b"one", b"two"])


def test_binary_data_of_a_mebibyte(node, returning) -> None:
    ended = node.run(
        returning('head -c 1048576 /dev/urandom >"$DEEPSQUARE_RESULT"; sha256sum <"$DEEPSQUARE_RESULT" | cut -c-64')
    )
    result, (digest,) = result_of(ended.output)
    assert result is not None
    assert len(result) == 1 << 20
    assert hashlib.sha256(result).hexdigest().encode() == digest


@pytest.mark.parametrize("code", [1, 42, 143, 255])
def test_a_failed_job_sends_it_too_and_has_its_own_exit_code(code: int, node, returning) -> None:
    ended = node.run(returning(f'echo partial >"$DEEPSQUARE_RESULT"; exit {code}', "echo never"))
    assert ended.code == code
    assert result_of(ended.output) == (b"partial\n", [])


def test_no_result_is_no_failure(node, returning) -> None:
    ended = node.run(returning("echo hello"))
    assert (ended.code, ended.errors) == (0, b"")
    assert result_of(ended.output) == (None, [b"hello"])


def test_a_result_that_is_too_large_is_no_failure_of_the_job(node, returning) -> None:
    ended = node.run(returning('head -c 1048577 /dev/zero >"$DEEPSQUARE_RESULT"'))
    assert ended.code == 0
    assert len(ended.output) < 200
    with pytest.raises(ResultError, match="1048577 bytes"):
        result_of(ended.output)


def test_a_job_whose_result_cannot_be_sent_ends_as_it_would(node, returning) -> None:
    # The second step is the one that sends it.
    node.add_program(
        "srun",
        '#!/bin/bash\necho >>"${0%/*}/../runs"\n[ "$(wc -l <"${0%/*}/../runs")" != 2 ] || exit 137\n'
        'while [[ $1 == -* ]]; do shift; done\nexec "$@"\n',
    )
    ended = node.run(returning("echo hello"))
    assert (ended.code, ended.text) == (0, "hello\n")
    with pytest.raises(ResultError, match="ended before"):
        result_of(ended.output)


def test_a_cancelled_job_sends_what_there_is(node, returning, tmp_path: Path) -> None:
    process = node.start(
        returning(f'echo partial >"$DEEPSQUARE_RESULT"; touch {tmp_path}/running; exec sleep 30', "echo never")
    )
    deadline = time.monotonic() + 10
    while not (tmp_path / "running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert result_of(output) == (b"partial\n", [])


def writes(text: str) -> dict[str, Any]:
    return {"run": {"command": f'printf {text} >>"$DEEPSQUARE_RESULT"'}}


@pytest.mark.parametrize(
    ("step", "result"),
    [
        ({"steps": [writes("a"), {"steps": [writes("b")]}]}, b"ab"),
        ({"for": {"parallel": False, "items": ["a", "b"], "steps": [writes('"$item"')]}}, b"ab"),
        ({"run": {"command": "exit 3"}, "catch": [writes('"$DEEPSQUARE_ERROR_CODE"')]}, b"3"),
        (writes("a") | {"finally": [writes("b")]}, b"ab"),
        (
            {"launch": {"signalOnParentStepExit": 0, "steps": [{"run": {"command": "sleep 0.3"}}, writes("late")]}},
            b"late",
        ),
    ],
)
def test_inner_steps_have_it_and_it_is_sent_after_all_of_them(
    step: dict[str, Any], result: bytes, node, returning
) -> None:
    ended = node.run(returning(steps=[step]))
    assert (ended.code, result_of(ended.output)) == (0, (result, []))


def test_containers_get_the_path_inside_and_what_they_write_is_there(node, returning) -> None:
    # A double of Apptainer, which has the scratch as it is: there is no /deepsquare here.
    node.add_program(
        "apptainer",
        '#!/bin/bash\n[ "$2" != pull ] || exec touch "$4"\n'
        f"echo \"$APPTAINERENV_DEEPSQUARE_RESULT\"\nprintf inside >'{node.scratch}/.deepsquare-result'\n",
    )
    container = {"image": "busybox", "apptainer": True}
    ended = node.run(returning({"command": "prog", "shell": "ENTRYPOINT", "container": container}))
    assert ended.code == 0
    assert result_of(ended.output) == (b"inside", [b"/deepsquare/.deepsquare-result"])


def test_what_prints_the_whole_job_prints_no_result(node, returning) -> None:
    """Commands can read the script that sends it, since it is a file of their own account's."""
    ended = node.run(returning('set -x; env; cat .deepsquare/* .* 2>/dev/null; printf real >"$DEEPSQUARE_RESULT"'))
    assert ended.code == 0
    assert TAG in ended.text
    assert result_of(ended.output)[0] == b"real"
