from __future__ import annotations

import pytest
from deepsquare.compiler.quoting import quote
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = 'it\'s "$(touch hacked)" `touch hacked`\nEND_OF_FILE_0\n\\ \t~ * é 😀 ${HOME} #\n\n'

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(["'", '"', "\n", "$(id)", "`id`", "\nEND_OF_FILE_0\n", "\\", "\r", "=", "\x01", "\x7f", "😀", " "])
).map("".join)
values = st.dictionaries(st.from_regex(r"V_[A-Za-z0-9_]{0,5}", fullmatch=True), texts, max_size=4)
in_processes = settings(max_examples=25, deadline=None)


def environment(output: bytes) -> dict[str, str]:
    return dict(line.decode().split("=", 1) for line in output.split(b"\0")[:-1])


@in_processes
@given(of_job=values, of_step=values, shell=st.sampled_from(["/bin/bash", "/bin/sh"]))
def test_values_arrive_byte_for_byte_and_the_steps_win(new_node, job, variables, of_job, of_step, shell) -> None:
    run = {"command": "env -0", "env": variables(**of_step), "shell": shell}
    ended = new_node().run(job(run, env=variables(**of_job)))
    assert (ended.code, ended.errors) == (0, b"")
    seen = environment(ended.output)
    assert {key: value for key, value in seen.items() if key.startswith("V_")} == of_job | of_step


def test_a_value_as_long_as_a_program_can_be_given_arrives(node, job, variables) -> None:
    value = "x" * (131072 - len("A=") - 1)
    assert environment(node.run(job("env -0", env=variables(A=value))).output)["A"] == value


@pytest.mark.parametrize(
    "key",
    [
        *("private", "command", "line", "key", "directory", "shell", "environment", "name", "value", "number"),
        *(
            "account",
            "shared",
            "step",
            "code",
            "stop",
            "clean_up",
            "exec",
            "export",
            "POSIXLY_CORRECT",
            "TMOUT",
            "CDPATH",
        ),
    ],
)
class TestAnyName:
    """The script's own variables are in nobody's way."""

    def test_of_the_job(self, key: str, node, job, variables) -> None:
        ended = node.run(job(f"exec printenv {key}", env=variables(**{key: "mine"})))
        assert (ended.code, ended.text) == (0, "mine\n")

    def test_of_a_step(self, key: str, node, job, variables) -> None:
        ended = node.run(job({"command": f"exec printenv {key}", "env": variables(**{key: "mine"})}))
        assert (ended.code, ended.text) == (0, "mine\n")

    def test_left_by_an_earlier_step(self, key: str, node, job) -> None:
        ended = node.run(job(f'echo {key}=mine >>"$DEEPSQUARE_ENV"', f"exec printenv {key}"))
        assert (ended.code, ended.text) == (0, "mine\n")


def expected_at(node) -> dict[str, str]:
    scratch, folder, user = node.scratch, node.folder, f"user-{node.shared.name}"
    return {
        "STORAGE_PATH": f"{scratch}",
        "DEEPSQUARE_INPUT": f"{scratch}/input",
        "DEEPSQUARE_OUTPUT": f"{scratch}/output",
        "DEEPSQUARE_ENV": f"{scratch}/env",
        "DEEPSQUARE_TMP": f"{folder}/persistent/{user}",
        "DEEPSQUARE_SHARED_TMP": f"{folder}/persistent/{user}",
        "DEEPSQUARE_SHARED_WORLD_TMP": f"{folder}/world-tmp",
        "DEEPSQUARE_DISK_TMP": f"{folder}/disk/tmp/{user}",
        "DEEPSQUARE_DISK_WORLD_TMP": f"{folder}/disk/world-tmp",
        "NTASKS": "2",
        "CPUS_PER_TASK": "4",
        "MEM_PER_CPU": "512",
        "GPUS": "2",
        "CPUS": "8",
        "MEM": "4096",
    }


def test_what_a_step_sees(node, job) -> None:
    expected = expected_at(node)
    seen = environment(node.run(job("env -0")).output)
    assert {key: seen.get(key) for key in expected} == expected
    assert not {"private", "command", "account", "shared", "line", "key", "step", "code"} & seen.keys()


def test_the_jobs_variables_do_not_take_the_place_of_the_grids(node, job, variables) -> None:
    expected = expected_at(node)
    seen = environment(node.run(job("env -0", env=variables(**dict.fromkeys(expected, "mine")))).output)
    assert {key: seen.get(key) for key in expected} == expected


def test_a_steps_variables_do(node, job, variables) -> None:
    mine = dict.fromkeys(expected_at(node), "mine")
    seen = environment(node.run(job({"command": "env -0", "env": variables(**mine)})).output)
    assert {key: seen.get(key) for key in mine} == mine


def test_numbers_that_no_shell_could_multiply(node, job) -> None:
    most = 2**31 - 1
    resources = {"tasks": most, "cpusPerTask": most, "memPerCpu": most, "gpus": 0}
    assert node.run(job('echo "$CPUS $MEM"', resources=resources)).text == f"{most**2} {most**3}\n"


def test_the_folders_are_there(node, job) -> None:
    tests = " && ".join(
        f'test -w "${name}"'
        for name in (
            *("STORAGE_PATH", "DEEPSQUARE_INPUT", "DEEPSQUARE_OUTPUT", "DEEPSQUARE_ENV", "DEEPSQUARE_TMP", "HOME"),
            *("DEEPSQUARE_SHARED_WORLD_TMP", "DEEPSQUARE_DISK_TMP", "DEEPSQUARE_DISK_WORLD_TMP"),
        )
    )
    assert node.run(job(tests)).code == 0


def test_caches_that_a_provider_does_not_offer_fail_no_job(node, job) -> None:
    node.variables |= {"DEEPSQUARE_PERSISTENT_ROOT": "/dev/null/no", "DEEPSQUARE_DISK_ROOT": "/dev/null/no"}
    ended = node.run(job("echo fine"))
    assert (ended.code, ended.text, ended.errors) == (0, "fine\n", b"")


def test_roots_may_have_any_name(new_node, job) -> None:
    odd = new_node()
    root = odd.folder / HOSTILE.replace("/", "")
    odd.variables["DEEPSQUARE_SHARED_ROOT"] = str(root)
    ended = odd.run(job('printf %s "$STORAGE_PATH"; test "$PWD" = "$STORAGE_PATH"'))
    assert (ended.code, ended.text) == (0, f"{root}/{odd.shared.name}/{odd.scratch.name}")


def test_each_job_has_a_home_of_its_own(node, job) -> None:
    node.variables["HOME"] = "/home/shared/by/all"
    assert node.run(job('echo "$HOME"; ls -A ~')).text == f"{node.scratch}/.deepsquare/home\n"


def test_the_providers_runtime_comes_first_on_the_path(node, job) -> None:
    runtime = node.folder / "runtime"
    (runtime / "bin").mkdir(parents=True)
    (runtime / "bin" / "hello").write_text("#!/bin/sh\necho from the runtime\n")
    (runtime / "bin" / "hello").chmod(0o755)
    node.variables["DEEPSQUARE_RUNTIME"] = str(runtime)
    assert node.run(job("hello; echo $PATH")).text.startswith(f"from the runtime\n{runtime}/bin:")


def test_a_steps_variables_do_not_leak_into_the_next(node, job, variables) -> None:
    first = {"command": 'echo "$A $B"; export C=left', "env": variables(A="step", B="step")}
    ended = node.run(job(first, 'echo "$A ${B-unset} ${C-unset}"', env=variables(A="job")))
    assert ended.text == "step step\njob unset unset\n"


def test_a_value_is_quoted_wherever_it_is_shown(node, job, variables) -> None:
    command = f'test "$A" = {quote(HOSTILE)} && test "$B" = {quote(HOSTILE)}'
    run = {"command": command, "env": variables(B=HOSTILE)}
    assert node.run(job(run, env=variables(A=HOSTILE))).code == 0
