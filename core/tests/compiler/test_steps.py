from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from deepsquare.compiler.quoting import quote
from deepsquare.compiler.steps import CACHES
from hypothesis import given, settings
from hypothesis import strategies as st


def test_nested_steps_run_in_the_order_in_which_they_are_written(node, job) -> None:
    def say(number: int) -> dict:
        return {"run": {"command": f"echo {number}"}}

    steps = [say(1), {"steps": [say(2), {"steps": [say(3)]}, {}, say(4)]}, {"name": "nothing"}, say(5)]
    assert node.run(job(steps=steps)).text == "1\n2\n3\n4\n5\n"


def test_a_command_is_run_as_it_is_written(node, job) -> None:
    command = "cat <<'END_OF_FILE_0'\n$(touch hacked) `touch hacked` ${HOME} \\ ' \"\nEND_OF_FILE_0\nls -A . | grep hacked\ntrue"
    assert node.run(job(command)).text == "$(touch hacked) `touch hacked` ${HOME} \\ ' \"\n"


@settings(max_examples=25, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.lists(st.sampled_from(["\n", "'", "$(id)", "\nEND_OF_FILE_0\n", "\nEND_OF_FILE_1\n", "\\", "\x01"])).map(
        "".join
    )
)
def test_any_command_reaches_its_shell_byte_for_byte(new_node, job, text: str) -> None:
    command = f'exec cat "$STORAGE_PATH/../.0x2a.7/command-1"\n{text}'
    assert new_node().run(job(command)).output == f"{command}\n".encode()


@pytest.mark.parametrize("shell", [None, "/bin/bash", "/bin/sh"])
def test_a_command_is_run_by_its_shell(shell: str | None, node, job) -> None:
    # On some distributions sh is bash.
    is_bash = Path(shell or "/bin/bash").resolve().name == "bash"
    ended = node.run(job({"command": 'echo "${BASH_VERSION:+bash}"; readlink /proc/$$/exe', "shell": shell}))
    assert ended.code == 0
    assert (ended.text.splitlines()[0] == "bash") is is_bash
    assert Path(ended.text.splitlines()[1]) == Path(shell or "/bin/bash").resolve()


def test_steps_start_in_the_jobs_scratch(node, job) -> None:
    assert node.run(job("pwd; cd /", "pwd")).text == f"{node.scratch}\n" * 2


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.sampled_from(["'", '"', "$(touch hacked)", "`id`", "\\", "\n", " ", "-", "~", "*", "é", "$STORAGE_PATH"]),
        min_size=1,
        max_size=8,
    ).map("".join)
)
def test_a_working_directory_may_have_any_name(new_node, job, name: str) -> None:
    node = new_node()
    directory = node.folder / name.replace("/", "")
    directory.mkdir()
    ended = node.run(job({"command": 'printf %s. "$PWD"; ls -A', "workDir": str(directory)}))
    assert (ended.code, ended.text) == (0, f"{directory}.")


def test_a_working_directory_that_is_not_there_fails_the_step_with_its_name(node, job) -> None:
    ended = node.run(job({"command": "echo never", "workDir": "/not/there"}, "echo later"))
    assert ended.code == 1
    assert "/not/there" in ended.text
    assert "never" not in ended.text
    assert "later" not in ended.text


def test_files_of_one_step_are_there_for_the_next(node, job) -> None:
    first = 'cd /; echo data >"$DEEPSQUARE_OUTPUT/file"'
    assert node.run(job(first, 'cat "$DEEPSQUARE_OUTPUT/file"')).text == "data\n"


def test_lines_of_output_and_errors_keep_their_order(node, job) -> None:
    ended = node.run(job("for i in 1 2 3; do echo out $i; echo err $i >&2; done"))
    assert ended.text == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    assert ended.errors == b""


def test_a_step_has_nothing_to_read(node, job) -> None:
    assert node.run(job("cat; echo end")).text == "end\n"


@pytest.mark.parametrize(("logging", "output"), [(None, "hello\n"), (True, "hello\n"), (False, "")])
def test_output_is_kept_unless_logging_is_off(logging: bool | None, output: str, node, job, tmp_path: Path) -> None:
    command = f"echo hello; ls /not/there 2>/dev/null; echo ran >{quote(str(tmp_path / 'proof'))}"
    ended = node.run(job(command, enableLogging=logging))
    assert (ended.code, ended.text, ended.errors) == (0, output, b"")
    assert (tmp_path / "proof").read_text() == "ran\n"


def test_with_logging_off_failures_are_silent_but_still_failures(node, job) -> None:
    node.add_program("srun", "#!/bin/bash\necho oops >&2\nexit 3\n")
    ended = node.run(job("true", enableLogging=False))
    assert (ended.code, ended.text, ended.errors) == (3, "", b"")
    assert not node.scratch.exists()


def test_an_empty_command_and_a_job_without_commands_succeed(new_node, job) -> None:
    assert new_node().run(job("")).code == 0
    assert new_node().run(job(steps=[{"name": "nothing"}])).code == 0


def test_a_node_makes_the_cache_on_its_own_disk(node, job) -> None:
    # As if the second step ran on another node.
    ended = node.run(job('rm -r "$DEEPSQUARE_DISK_TMP"', 'touch "$DEEPSQUARE_DISK_TMP/here" && echo made'))
    assert (ended.code, ended.text) == (0, "made\n")


@pytest.mark.parametrize("name", [None, "train", "a name\nexit 1", "$(touch hacked)'\""])
def test_a_step_that_fails_is_named_with_its_place(name: str | None, node, job) -> None:
    steps = [{"run": {"command": "true"}, "name": name}, {"steps": [{"name": name, "run": {"command": "exit 3"}}]}]
    ended = node.run(job(steps=steps))
    called = "steps[1].steps[0]" + (f' "{name}"' if name else "")
    assert (ended.code, ended.output) == (3, b"")
    assert ended.errors.decode() == f"deepsquare: {called} failed with exit code 3\n"
    assert not node.scratch.exists()


def test_a_condition_that_is_none_is_named_with_its_place(node, job) -> None:
    ended = node.run(job(steps=[{"if": "1 -eq", "name": "first", "run": {"command": "echo never"}}]))
    assert ended.code == 2
    assert ended.errors.decode().endswith('deepsquare: the if of steps[0] "first" is no test of bash\n')


@pytest.mark.parametrize("free", [0, 8, 16, 24, 32, 40, 48])
def test_a_full_disk_fails_the_job(free: int, node, job) -> None:
    node.shared.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", node.shared.parent], check=True)
    try:
        if free < 48:
            (node.shared.parent / "ballast").write_bytes(b"x" * (48 - free) * 1024)
        ended = node.run(job("echo one", "echo two; exit 7"))
    finally:
        subprocess.run(["umount", node.shared.parent], check=True)
    # Whatever was written before the disk was full: it is no success.
    said = [line for line in ended.text.splitlines() if "write error" not in line]
    assert (ended.code, said) in [(1, []), (1, ["one"]), (7, ["one", "two"])]
    if free == 0:
        assert ended.code == 1


def test_who_comes_first_does_not_shut_others_out_of_the_caches() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o777)
        for uid in (65001, 65002):
            caches = {
                "DEEPSQUARE_SHARED_TMP": f"{root}/persistent/user-{uid}",
                "DEEPSQUARE_SHARED_WORLD_TMP": f"{root}/world-tmp",
                "DEEPSQUARE_DISK_TMP": f"{root}/disk/tmp/user-{uid}",
                "DEEPSQUARE_DISK_WORLD_TMP": f"{root}/disk/world-tmp",
            }
            body = CACHES.removesuffix("exit 0\n")
            look = f"{body}stat -c %u:%a {' '.join(caches.values())} >&3"
            made = subprocess.run(
                ["bash", "-c", f"exec 3>&1\n{look}"],
                check=True,
                capture_output=True,
                text=True,
                env={"PATH": os.environ["PATH"]} | caches,
                user=uid,
                group=uid,
                extra_groups=[],
                umask=0o077,
            ).stdout.split()
            assert made == [f"{uid}:700", "65001:1777", f"{uid}:700", "65001:1777"]
