from __future__ import annotations

import pytest

SECRETS = ("secret-command", "secret-of-the-job", "secret-of-the-step")


def options(node, job, resources=None, **run) -> list[str]:
    asked = {"command": "true", "resources": resources or {}} | run
    assert node.run(job(asked)).code == 0
    (call,) = node.srun_calls()
    return call[:-4]


def options_of_last(node) -> list[str]:
    return node.srun_calls()[-1][:-4]


def test_a_step_has_one_task_with_the_jobs_cpus_and_memory(node, job) -> None:
    assert options(node, job) == [
        "--ntasks=1",
        "--nodes=1",
        "--cpus-per-task=4",
        "--mem-per-cpu=512M",
        "--kill-on-bad-exit=1",
        "--quiet",
        "--gres=none",
    ]


def test_a_step_gets_what_it_asks_for(node, job) -> None:
    asked = {"tasks": 2, "cpusPerTask": 3, "memPerCpu": 64, "gpusPerTask": 1}
    assert {"--ntasks=2", "--cpus-per-task=3", "--mem-per-cpu=64M", "--gpus-per-task=1"} <= set(
        options(node, job, asked)
    )


@pytest.mark.parametrize("resources", [{}, {"gpusPerTask": 0}])
def test_no_gpus_are_asked_for_unless_a_step_does(resources: dict, node, job) -> None:
    # Slurm would give it all of the job's.
    node.variables["SLURM_GPUS"] = "2"
    assert not any("gpu" in option for option in options(node, job, resources))
    assert "--gres=none" in options_of_last(node)


@pytest.mark.parametrize(("disabled", "given"), [(True, True), (False, False), (None, False)])
def test_binding_to_cpus_can_be_switched_off(disabled: bool | None, given: bool, node, job) -> None:
    assert ("--cpu-bind=none" in options(node, job, disableCpuBinding=disabled)) is given


def test_each_command_is_one_srun_of_its_own_launcher(node, job) -> None:
    assert node.run(job("true", "true", "true")).code == 0
    private = node.private
    assert [call[-4:-2] for call in node.srun_calls()] == [["/bin/bash", f"{private}/step-{n}"] for n in (1, 2, 3)]


def test_srun_passes_on_the_whole_environment(node, job) -> None:
    node.variables["SLURM_EXPORT_ENV"] = "SLURM_JOB_NAME"
    assert node.run(job('echo "$SLURM_EXPORT_ENV"')).text == "ALL\n"


def test_no_process_list_shows_a_command_or_a_value(node, job, variables) -> None:
    for name in ("cat", "id", "mkdir", "rm"):
        spy = f'#!/bin/bash\nprintf \'%s \' {name} "$@" >>"${{0%/*}}/../spied"\nexec /bin/{name} "$@"\n'
        node.add_program(name, spy.replace("/bin/id", "/usr/bin/id"))
    command, of_job, of_step = SECRETS
    run = {"command": f": {command}; echo $A $B", "env": variables(B=of_step), "workDir": "/tmp"}
    ended = node.run(job(run, env=variables(A=of_job)))
    assert (ended.code, ended.text) == (0, f"{of_job} {of_step}\n")
    spied = (node.folder / "spied").read_text()
    assert {"cat", "id", "mkdir", "rm"} <= set(spied.split())
    assert not any(secret in spied for secret in SECRETS)
    assert not any(secret in word for call in node.srun_calls() for word in call for secret in SECRETS)


def test_neither_srun_nor_the_script_has_the_values_in_its_environment(node, job, variables) -> None:
    node.add_program("srun", '#!/bin/bash\nenv >>"${0%/*}/../environment"\n')
    run = {"command": "true", "env": variables(B=SECRETS[2])}
    assert node.run(job(run, env=variables(A=SECRETS[1]))).code == 0
    environment = (node.folder / "environment").read_text()
    assert "STORAGE_PATH=" in environment
    assert not any(secret in environment for secret in SECRETS)


def test_what_the_script_writes_is_for_the_job_alone(node, job, variables) -> None:
    node.as_user["umask"] = 0
    run = {"command": 'cd "$STORAGE_PATH/../.0x2a.7" && stat -c "%a %n" . .. *', "env": variables(B="b")}
    ended = node.run(job("true", run, env=variables(A="a")))
    modes = dict(reversed(line.split()) for line in ended.text.splitlines())
    # With the number of Slurm's step, and the sign that a shell has begun.
    assert [modes.pop(name) for name in list(modes) if name.startswith(("id-", "begun-"))] == ["600", "600"]
    assert modes == {
        ".": "700",
        "..": "700",
        "caches": "600",
        "command-1": "600",
        "command-2": "600",
        "environment": "600",
        "images": "700",
        "passed-on": "600",
        "step-1": "600",
        "step-2": "600",
        "variables": "600",
    }
