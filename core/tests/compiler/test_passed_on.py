"""`KEY=value` lines that a step appends to $DEEPSQUARE_ENV are variables of the later ones."""

from __future__ import annotations

import pytest
from deepsquare.compiler.quoting import quote
from hypothesis import given, settings
from hypothesis import strategies as st


def leave(lines: bytes | str) -> str:
    """A command that appends these bytes."""
    data = lines if isinstance(lines, bytes) else lines.encode()
    octal = "".join(f"\\{byte:03o}" for byte in data)
    return f"printf '{octal}' >>\"$DEEPSQUARE_ENV\""


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ("A=1\n", "1"),
        ("A=1", "1"),
        ("A=1\nA=2\n", "2"),
        ("A=\n", ""),
        ("A=a=b=c\n", "a=b=c"),
        ("A= spaces  and\ttabs \n", " spaces  and\ttabs "),
        ("A=$(touch hacked) `touch hacked` $HOME\n", "$(touch hacked) `touch hacked` $HOME"),
        ("A='quoted' \"twice\" \\n \\\\\n", "'quoted' \"twice\" \\n \\\\"),
        ("A=*\n", "*"),
        ("A=~\n", "~"),
        ("\nnothing\nA=after bad lines\n", "after bad lines"),
    ],
)
def test_a_value_is_what_stands_behind_the_first_equals_sign(lines: str, value: str, node, job) -> None:
    ended = node.run(job(leave(lines), 'printf "<%s>" "$A"; ls -A'))
    assert ended.code == 0
    assert f"<{value}>" in ended.text
    assert "hacked" not in ended.text.rsplit(">", 1)[1]


@settings(max_examples=25, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]))
    | st.lists(st.sampled_from(["\\", "'", '"', "$(id)", " ", "=", "\r", "\x01", "\x7f", "😀"])).map("".join)
)
def test_any_line_arrives_byte_for_byte(new_node, job, value: str) -> None:
    ended = new_node().run(job(f'printf "%s\\n" {quote(f"A={value}")} >>"$DEEPSQUARE_ENV"', 'printf %s "$A"'))
    assert ended.text == value


def test_all_later_steps_have_it_and_the_last_line_wins(node, job) -> None:
    ended = node.run(job(leave("A=1\nB=1\n"), leave("A=2\n"), "echo $A $B", "echo $A $B"))
    assert ended.text == "2 1\n2 1\n"


def test_the_step_that_writes_it_does_not_have_it(node, job) -> None:
    assert node.run(job(leave("A=1\n") + '; echo "${A-unset}"')).text == "unset\n"


def test_it_wins_over_the_jobs_variables_and_loses_to_the_steps(node, job, variables) -> None:
    run = {"command": 'echo "$A $B"', "env": variables(B="step")}
    assert node.run(job(leave("A=left\nB=left\n"), run, env=variables(A="job", B="job"))).text == "left step\n"


@pytest.mark.parametrize(
    "line",
    [
        *("no equals sign", "1A=x", "A B=x", " A=x", "A =x", "=x", "=", "A-B=x", "A.B=x", "$(touch hacked)=x", "é=x"),
        *("a[0]=x", "a[$(touch hacked)]=x", "BASH_FUNC_ls%%=() { touch hacked; }", "-p=x", "export A=x", "#A=x"),
        *("PATH=/evil", "LD_LIBRARY_PATH=/evil", "PATH=", "PATH+=:/evil"),
    ],
)
def test_a_line_that_sets_nothing_is_ignored_with_a_message(line: str, node, job) -> None:
    ended = node.run(job(leave(f"BEFORE=1\n{line}\nAFTER=1\n"), 'env; echo "files: $(ls)"'))
    assert ended.code == 0
    assert ended.text.count("Ignored a line of DEEPSQUARE_ENV") == 1
    assert {"BEFORE=1", "AFTER=1"} <= set(ended.text.splitlines())
    assert "evil" not in ended.text
    assert "LD_LIBRARY_PATH" not in ended.text
    assert "hacked" not in ended.text.rsplit("files:", 1)[1]


def test_a_message_does_not_repeat_the_line(node, job) -> None:
    assert "hunter2" not in node.run(job(leave("no key, but hunter2\n"), "true")).text


@pytest.mark.parametrize("own", ["UID", "PPID", "SHELLOPTS"])
@pytest.mark.parametrize("posix", [False, True])
def test_what_bash_lets_nobody_set_is_ignored_too(own: str, posix: bool, node, job, variables) -> None:
    env = variables(POSIXLY_CORRECT="1") if posix else []
    ended = node.run(job(leave(f"{own}=5\nAFTER=1\n"), 'echo "$AFTER"', env=env))
    assert ended.code == 0
    assert ended.text.endswith("1\n")
    assert "Ignored a line" in ended.text or "readonly variable" in ended.text


@pytest.mark.parametrize("own", ["DEEPSQUARE_ENV=/dev/null", "private=/", "command=/bin/false", "directory=/"])
def test_no_line_misleads_the_grids_own_part_of_later_steps(own: str, node, job) -> None:
    ended = node.run(job(leave(f"{own}\nA=1\n"), "echo second; echo B=2 >>env", 'echo "$A $B"; pwd'))
    assert ended.text == f"second\n1 2\n{node.scratch}\n"


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_fail_the_next_step(new_node, job, data: bytes) -> None:
    ended = new_node().run(job(leave(data), "echo alive"))
    assert ended.code == 0
    assert ended.output.endswith(b"alive\n")


def test_a_file_that_is_gone_fails_nothing(node, job) -> None:
    ended = node.run(job('rm "$DEEPSQUARE_ENV"', "echo alive"))
    assert ended.code == 0
    assert ended.text.endswith("alive\n")
