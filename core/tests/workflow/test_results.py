"""The result channel: what a job wrote to $DEEPSQUARE_RESULT is what is found in its log, or it is said why not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pickle
import random
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from deepsquare.errors import DeepSquareError
from deepsquare.workflow import (
    ResultError,
    ResultReader,
    Workflow,
    WorkflowError,
    from_dict,
    new_tag,
    with_result,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TAG, OTHER_TAG = "0123456789abcdef" * 2, "f" * 32
MIB = 1 << 20
EXPORT = 'export DEEPSQUARE_RESULT="$STORAGE_PATH/.deepsquare-result"\n'
INSIDE = {"key": "DEEPSQUARE_RESULT", "value": "/deepsquare/.deepsquare-result"}
CONTAINER = {"image": "busybox", "apptainer": True}
JOB = {
    "resources": {"tasks": 2, "cpusPerTask": 4, "memPerCpu": 512, "gpus": 1},
    "steps": [{"run": {"command": "true"}}],
}
unhurried = settings(deadline=None)


def publish_run(tag: str = TAG) -> Any:
    return with_result(from_dict(JOB), tag).steps[0].finally_[0].run


def published(storage: Path, **options: Any) -> bytes:
    """What the step that sends the result prints."""
    variables = {"PATH": "/usr/bin:/bin", "STORAGE_PATH": str(storage)} | options.pop("variables", {})
    ended = subprocess.run(
        ["/bin/bash", "-c", publish_run().command], env=variables, capture_output=True, check=False, **options
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout


def write(storage: Path, data: bytes) -> None:
    (storage / ".deepsquare-result").write_bytes(data)


def read(lines: Iterable[bytes | str], tag: str = TAG) -> bytes | None:
    reader = ResultReader(tag)
    for line in lines:
        reader.feed(line)
    return reader.result


def failure(lines: Iterable[bytes | str]) -> ResultError:
    with pytest.raises(ResultError) as caught:
        read(lines)
    return caught.value


def lines_of(data: bytes, tag: str = TAG) -> list[bytes]:
    """The channel's lines as its description has them."""
    pieces = [data[start : start + 6000] for start in range(0, len(data), 6000)]
    texts = [f"{number} {base64.b64encode(piece).decode()}" for number, piece in enumerate(pieces, 1)]
    texts.append(f"end {len(pieces)} {len(data)} {hashlib.sha256(data).hexdigest()}")
    return [f"@deepsquare-result {tag} {text}".encode() for text in texts]


def line(text: str) -> bytes:
    return f"@deepsquare-result {TAG} {text}".encode()


# ---------------------------------------------------------------------- the step that sends it


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=100) | st.integers(0, 20_000).map(lambda size: random.Random(size).randbytes(size)))
def test_any_bytes_travel(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    storage = tmp_path_factory.mktemp("storage")
    write(storage, data)
    assert read(published(storage).split(b"\n")) == data


@pytest.mark.parametrize("size", [0, 1, 5999, 6000, 6001, 12000, MIB - 1, MIB])
def test_any_size_travels_up_to_the_limit(size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    write(tmp_path, data)
    output = published(tmp_path)
    assert output == b"\n" + b"".join(line + b"\n" for line in lines_of(data))
    assert max(map(len, output.splitlines(keepends=True))) <= 8 << 10
    assert read(output.split(b"\n")) == data


def test_no_file_is_no_result_and_an_empty_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read(published(tmp_path).split(b"\n")) is None
    write(tmp_path, b"")
    assert read(published(tmp_path).split(b"\n")) == b""


@pytest.mark.parametrize("size", [MIB + 1, 1 << 40])
def test_of_a_file_over_the_limit_only_its_size_is_sent(size: int, tmp_path: Path) -> None:
    write(tmp_path, b"")
    os.truncate(tmp_path / ".deepsquare-result", size)
    output = published(tmp_path)
    assert output == b"\n" + line(f"large {size}\n")
    error = failure(output.split(b"\n"))
    assert (error.kind, error.size) == ("large", size)
    assert f"{size} bytes" in str(error)
    assert "1 MiB" in str(error)


def test_what_is_no_file_is_an_error_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / ".deepsquare-result"
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path), lambda: path.symlink_to("gone")):
        make()
        error = failure(published(tmp_path, timeout=10).split(b"\n"))
        assert error.kind == "unreadable"
        assert "no file, but a folder" in str(error)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    # As an account that is not root, which may read everything; it can't enter pytest's own folders.
    account = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        storage.chmod(0o711)
        write(storage, b"value")
        (storage / ".deepsquare-result").chmod(0)
        assert "can't be read" in str(failure(published(storage, **account).split(b"\n")))


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    (tmp_path / ".deepsquare-result").symlink_to("model")
    assert read(published(tmp_path).split(b"\n")) == b"weights"


def test_it_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, b"value")
    lines = (b"no newline here" + published(tmp_path)).split(b"\n")
    assert lines[0] == b"no newline here"
    assert read(lines) == b"value"


def test_variables_of_the_customer_are_not_in_its_way(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(300_000)
    write(tmp_path, data)
    names = (
        "data",
        "tag",
        "size",
        "sum",
        "number",
        "send",
        "publish",
        "POSIXLY_CORRECT",
        "LC_ALL",
        "DEEPSQUARE_RESULT",
    )
    assert read(published(tmp_path, variables=dict.fromkeys(names, "C.UTF-8")).split(b"\n")) == data


def test_without_its_tools_it_fails_no_job(tmp_path: Path) -> None:
    write(tmp_path, b"value")
    error = failure(published(tmp_path, variables={"PATH": "/nowhere"}).split(b"\n"))
    assert error.kind == "unreadable"


def test_it_is_clean(tmp_path: Path) -> None:
    script = tmp_path / "publish"
    script.write_text(f"#!/bin/bash\n{publish_run().command}")
    checked = subprocess.run(
        ["shellcheck", "--norc", "--severity=style", script], check=False, capture_output=True, text=True
    )
    assert checked.stdout + checked.stderr == ""


def test_what_shows_its_text_or_traces_it_is_no_result(tmp_path: Path) -> None:
    """Commands can find it among the files of their job, and print it."""
    write(tmp_path, b"value")
    command = publish_run().command
    assert not any(ResultReader(TAG).feed(line) for line in command.split("\n"))
    variables = {"PATH": "/usr/bin:/bin", "STORAGE_PATH": str(tmp_path)}
    ended = subprocess.run(["/bin/bash", "-xc", command], env=variables, capture_output=True, check=True)
    assert not any(ResultReader(TAG).feed(line) for line in ended.stderr.split(b"\n"))


# ---------------------------------------------------------------------- the workflow that has it


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_commands_on_the_host_have_the_variable(shell: str, tmp_path: Path) -> None:
    run = {
        "command": 'set -eu; printf value >"$DEEPSQUARE_RESULT"; env | grep -c "^DEEPSQUARE_RESULT="',
        "shell": shell,
    }
    changed = with_result(from_dict(JOB | {"steps": [{"run": run}]}), TAG).steps[0].steps[0].run
    assert changed is not None
    variables = {"STORAGE_PATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run([shell, "-c", changed.command], env=variables, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"1\n", b"")
    assert read(published(tmp_path).split(b"\n")) == b"value"


@settings(deadline=None, max_examples=20)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_command_sees_its_own_text_behind_the_first_line(text: str) -> None:
    run = {"command": f"cat <<'END OF IT'\n{text}\nEND OF IT\n", "shell": "/bin/sh"}
    changed = with_result(from_dict(JOB | {"steps": [{"run": run}]}), TAG).steps[0].steps[0].run
    assert changed is not None
    ended = subprocess.run(["/bin/sh", "-c", changed.command], capture_output=True, check=True)
    assert ended.stdout == f"{text}\n".encode()


@pytest.mark.parametrize("shell", [None, "/bin/sh", "/bin/bash", "/bin/ash", "ENTRYPOINT"])
def test_commands_in_containers_have_the_path_that_holds_inside(shell: str | None) -> None:
    env = [{"key": "A", "value": "b"}]
    run = {"command": "prog --flag", "env": env, "container": CONTAINER} | ({"shell": shell} if shell else {})
    changed = with_result(from_dict(JOB | {"steps": [{"run": run}]}), TAG).to_dict()["steps"][0]["steps"][0]["run"]
    assert changed == run | {"env": [*env, INSIDE]}


def test_the_steps_come_first_and_the_sending_at_last_whatever_happened() -> None:
    steps = [{"name": "one", "run": {"command": "echo 1"}}, {"name": "two", "steps": [{"run": {"command": "echo 2"}}]}]
    changed = with_result(from_dict(JOB | {"steps": steps}), TAG).to_dict()
    (whole,) = changed["steps"]
    (sending,) = whole.pop("finally")
    steps[0]["run"]["command"] = EXPORT + "echo 1"
    steps[1]["steps"][0]["run"]["command"] = EXPORT + "echo 2"
    assert whole == {"steps": steps}
    assert sending["name"] == "send the result"
    assert sending["run"].pop("command").startswith(EXPORT)
    assert sending["run"] == {"shell": "/bin/bash", "resources": {"tasks": 1, "cpusPerTask": 1}}


@pytest.mark.parametrize("logging", [{}, {"enableLogging": None}, {"enableLogging": True}])
def test_the_log_is_kept(logging: dict[str, Any]) -> None:
    assert with_result(from_dict(JOB | logging), TAG).enable_logging is True


def test_its_own_errors_name_the_place() -> None:
    own = [{"key": "A", "value": "1"}, {"key": "DEEPSQUARE_RESULT", "value": "secret"}]
    run = {"run": {"command": "true", "env": own}}
    steps = [run, {"for": {"parallel": False, "items": ["a"], "steps": [run]}, "catch": [{"run": {"command": "true"}}]}]
    with pytest.raises(WorkflowError) as caught:
        with_result(from_dict(JOB | {"steps": steps, "env": own, "enableLogging": False}), TAG)
    assert [problem.path for problem in caught.value.problems] == [
        "enableLogging",
        "env[1].key",
        "steps[0].run.env[1].key",
        "steps[1].for.steps[0].run.env[1].key",
    ]
    assert "the result travels with the log" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_twice_is_a_mistake() -> None:
    for run in ({"command": "true"}, {"command": "true", "container": CONTAINER}):
        once = with_result(from_dict(JOB | {"steps": [{"run": run}]}), TAG)
        with pytest.raises(WorkflowError, match="already") as caught:
            with_result(once, OTHER_TAG)
        assert len(caught.value.problems) == 1


def test_a_command_that_grows_over_the_limit_is_named_by_the_users_own_place() -> None:
    steps = [{}, {"run": {"command": "#" * MIB}}]
    with pytest.raises(WorkflowError, match=r"steps\[1\].run.command: is longer"):
        with_result(from_dict(JOB | {"steps": steps}), TAG)


def test_steps_that_are_nested_too_deep_are_refused() -> None:
    step: dict[str, Any] = {}
    while True:
        step = {"steps": [step]}
        try:
            workflow = from_dict(JOB | {"steps": [step]})
        except WorkflowError:
            break
    with pytest.raises(WorkflowError, match="deep"):
        with_result(workflow, TAG)


@pytest.mark.parametrize("tag", ["", "a" * 31, "a" * 33, "A" * 32, "a" * 31 + "\n", "$(touch x)", "a" * 32 + "\n"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="new_tag"):
        with_result(from_dict(JOB), tag)
    with pytest.raises(ValueError, match="new_tag"):
        ResultReader(tag)


def test_each_tag_is_another() -> None:
    assert len({new_tag() for _ in range(100)}) == 100
    ResultReader(new_tag())


_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_variable = st.fixed_dictionaries({"key": st.from_regex(r"K_[A-Za-z0-9_]{0,8}", fullmatch=True), "value": _text})
_run = st.fixed_dictionaries(
    {"command": _text},
    optional={
        "shell": st.sampled_from([None, "/bin/bash", "/bin/ash", "/bin/sh"]),
        "env": st.lists(_variable, max_size=2),
        "container": st.sampled_from([None, CONTAINER, CONTAINER | {"password": "secret"}]),
    },
)


def _outer(inner: st.SearchStrategy[list[dict[str, Any]]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    kinds = st.one_of(
        st.fixed_dictionaries({"steps": inner}),
        st.fixed_dictionaries(
            {"for": st.fixed_dictionaries({"parallel": st.booleans(), "items": st.just(["a"]), "steps": inner})}
        ),
        st.fixed_dictionaries({"launch": st.fixed_dictionaries({"steps": inner})}),
        st.fixed_dictionaries(
            {"use": st.fixed_dictionaries({"source": st.just("github.com/example/modules/x@v1"), "steps": inner})}
        ),
        st.fixed_dictionaries({"run": _run}, optional={"name": _text, "catch": inner, "finally": inner}),
    )
    return st.lists(kinds, min_size=1, max_size=3)


_steps = st.recursive(st.lists(st.fixed_dictionaries({}, optional={"run": _run}), min_size=1, max_size=2), _outer)
_workflows = st.fixed_dictionaries(
    {"resources": st.just(JOB["resources"]), "steps": _steps},
    optional={"env": st.lists(_variable, max_size=2), "enableLogging": st.sampled_from([None, True])},
).map(from_dict)


@unhurried
@given(_workflows)
def test_any_workflow_stays_valid_and_its_commands_what_they_are(workflow: Workflow) -> None:
    changed = with_result(workflow, TAG)
    assert from_dict(changed.to_dict()) == changed
    assert with_result(workflow, TAG) == changed

    inner = changed.model_copy(update={"steps": changed.steps[0].steps})
    assert TAG not in str(inner.to_dict())
    assert str(changed.to_dict()).count(TAG) == 1

    for (place, before), (same_place, after) in zip(workflow.located_runs(), inner.located_runs(), strict=True):
        assert place == same_place
        if before.container is None:
            assert after == before.model_copy(update={"command": EXPORT + before.command})
        else:
            assert (after.command, after.container, after.env[:-1]) == (before.command, before.container, before.env)
            assert (after.env[-1].key, after.env[-1].value) == tuple(INSIDE.values())
    names = [step.name for _, step in workflow.located_steps()]
    assert [step.name for _, step in inner.located_steps()] == names


# ---------------------------------------------------------------------- reading it


_noise = (
    st.binary(max_size=30)
    | st.sampled_from([b"", b"\n", b"@deepsquare-result", f"@deepsquare-result {TAG}".encode(), b" " + line("none")])
    | st.sampled_from([f"+ echo @deepsquare-result {TAG} none".encode(), *lines_of(b"another's", OTHER_TAG)])
).filter(lambda text: not text.startswith(line("")))


@st.composite
def _logs(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[bytes]]:
    """A result, its lines, and a log that has them, read with interruptions after which it goes on from any earlier line."""
    size = draw(st.integers(0, 40_000))
    data = random.Random(size).randbytes(size)
    sent = lines_of(data)
    whole = draw(st.lists(_noise, max_size=3))
    for text in sent:
        whole += [text, *draw(st.lists(_noise, max_size=1))]
    log: list[bytes] = []
    place = 0
    for end in [*sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4))), len(whole)]:
        log += whole[draw(st.integers(0, place)) : end]
        place = max(place, end)
    return data, sent, log


@unhurried
@given(_logs(), st.booleans())
def test_a_log_that_is_read_again_from_anywhere_with_anything_in_between(
    case: tuple[bytes, list[bytes], list[bytes]], as_text: bool
) -> None:
    data, sent, log = case
    reader = ResultReader(TAG)
    for text in log:
        assert reader.feed(text.decode(errors="replace") if as_text else text) == (text in sent)
    assert reader.result == data
    assert reader.result == data


@unhurried
@given(st.integers(0, 30_000), st.randoms(use_true_random=False))
def test_lines_in_any_order_with_any_line_ends(size: int, order: random.Random) -> None:
    data = order.randbytes(size)
    lines = [text + order.choice([b"", b"\r", b"\n", b"\r\n"]) for text in lines_of(data) * 2]
    order.shuffle(lines)
    assert read(lines) == data


@unhurried
@given(st.integers(1, 30_000), st.data())
def test_a_result_with_any_damage_is_none(size: int, choose: st.DataObject) -> None:
    """Lost, cut, or changed: there is an error, or what was sent."""
    data = random.Random(size).randbytes(size)
    lines = lines_of(data)
    number = choose.draw(st.integers(0, len(lines) - 1))
    text = lines[number]
    place = choose.draw(st.integers(0, len(text)))
    damage: list[list[bytes]] = [
        [],
        [text[:place]],
        [text[:place], text[place:]],
        [text[:place] + b"A" + text[place + 1 :]],
    ]
    lines[number : number + 1] = choose.draw(st.sampled_from(damage))
    with contextlib.suppress(ResultError):
        assert read(lines) == data


_parts = st.sampled_from(
    [
        *("none", "end 0 0", "end 1 3", "large", "large 5", "error", "error irregular", "error unreadable"),
        *("1 ", "2 ", "0 ", "176 ", "999999 ", "-1 ", "1_0 ", "QUJD", "QQ==", "Q", "=", "é", " ", "\n", "\0", "end "),
        *(hashlib.sha256(data).hexdigest() for data in (b"", b"ABC")),
        *("1 QUJD", f"end 1 3 {hashlib.sha256(b'ABC').hexdigest()}", f"end 0 0 {hashlib.sha256(b'').hexdigest()}"),
    ]
)
_forged = st.lists(_parts, max_size=4).map("".join) | st.lists(_parts, max_size=4).map(" ".join) | st.text(max_size=20)
_any_line = _forged.map(lambda text: f"@deepsquare-result {TAG} {text}") | st.text(max_size=20) | st.binary(max_size=50)


@settings(deadline=None, max_examples=400)
@given(st.lists(_any_line, max_size=8))
def test_whatever_comes_it_says_what_is_wrong(lines: list[str | bytes]) -> None:
    with contextlib.suppress(ResultError):
        assert read(lines) in (None, b"", b"ABC")


@pytest.mark.parametrize(
    ("lines", "kind", "reason"),
    [
        ([], "incomplete", "ended before it had sent it"),
        (["an", "ordinary", "log"], "incomplete", "ended before it had sent it"),
        (lines_of(b"a" * 9000)[:-1], "incomplete", "ended before"),
        (lines_of(b"a" * 9000)[1:], "incomplete", "1 of its 2 pieces"),
        ([line("end 999999 0 " + "0" * 64)], "incomplete", "of its 999999 pieces"),
        ([line("1 QUJD"), line("1 QUJE")], "damaged", "piece 1 was sent twice"),
        ([line("none"), line("large 2000000")], "damaged", "sent twice"),
        ([line("1 QUJD"), line("none")], "damaged", "said to be none"),
        ([line("1 QUJ")], "damaged", "no base64"),
        ([line("1 Q*JD")], "damaged", "not as it was sent"),
        ([line("0 QUJD")], "damaged", "not as it was sent"),
        ([line("176 QUJD")], "damaged", "not as it was sent"),
        ([line("1 " + "A" * 8004)], "damaged", "not as it was sent"),
        ([line("")], "damaged", "not as it was sent"),
        ([*lines_of(b"abc")[:1], lines_of(b"abd")[-1]], "damaged", "don't make up"),
        ([*lines_of(b"abc"), line("2 QUJD")], "damaged", "don't make up"),
        (lines_of(b"a" * (175 * 6000)), "damaged", "don't make up"),
        ([line("error irregular")], "unreadable", "no file"),
    ],
)
def test_what_is_wrong_with_a_result(lines: list[bytes | str], kind: str, reason: str) -> None:
    error = failure(lines)
    assert error.kind == kind
    assert reason in str(error)
    assert isinstance(error, DeepSquareError)


def test_a_damaged_result_stays_damaged() -> None:
    lines = lines_of(b"value")
    assert failure([*lines, line("1 QUJD"), *lines]).kind == "damaged"


def test_errors_travel_between_processes() -> None:
    error = failure([line("large 2000000")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.kind, again.size) == (str(error), "large", 2000000)


def test_it_keeps_no_more_than_the_largest_result_whatever_a_provider_sends() -> None:
    piece = base64.b64encode(b"a" * 6000).decode()
    reader = ResultReader(TAG)
    tracemalloc.start()
    try:
        for turn in range(20):
            for number in range(1, 176):
                reader.feed(line(f"{number} {piece}"))
                reader.feed(f"@deepsquare-result {OTHER_TAG} {number} {piece}")
            reader.feed(line(f"end 1 1 {turn:064x}") if turn > 10 else b"x" * 8000)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()
    with pytest.raises(ResultError):
        _ = reader.result
