from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deepsquare.compiler import EXIT_STARTED_BEFORE, compile_workflow
from deepsquare.workflow import from_dict


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


@pytest.mark.parametrize("code", [1, 2, 42, 125, 126, 127, 255])
def test_the_exit_code_of_a_failing_step_is_the_jobs_and_later_steps_do_not_run(code: int, node, job) -> None:
    ended = node.run(job("echo first", f"exit {code}", "echo later"))
    assert (ended.code, ended.text) == (code, "first\n")
    assert len(node.srun_calls()) == 2


def test_a_step_that_a_signal_killed_has_failed(node, job) -> None:
    ended = node.run(job("kill -KILL $$", "echo later"))
    assert (ended.code, ended.text) == (128 + signal.SIGKILL, "")


def test_an_srun_that_cannot_start_a_step_has_failed_too(node, job) -> None:
    node.add_program("srun", "#!/bin/bash\necho 'srun: error: no nodes' >&2\nexit 1\n")
    ended = node.run(job("true", "echo later"))
    assert ended.code == 1
    assert b"no nodes" in ended.errors


@pytest.mark.parametrize("command", ["true", "exit 3", "mkdir -p a/b; touch 'a/b/c d' .hidden; ln -s / root", "cd /"])
def test_the_scratch_is_gone_at_the_end_whatever_happened(command: str, node, job) -> None:
    node.run(job(f'touch "$DEEPSQUARE_OUTPUT/file"; {command}'))
    assert not node.scratch.exists()
    assert [path.name for path in node.shared.iterdir()] == ["started"]


def test_caches_stay(node, job) -> None:
    node.run(job('touch "$DEEPSQUARE_TMP/kept" "$DEEPSQUARE_DISK_TMP/kept"'))
    assert sorted(path.parent.parent.name for path in node.folder.rglob("kept")) == ["persistent", "tmp"]


@pytest.fixture
def account_node(new_node, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A node whose jobs run as an ordinary account, as a grid's do: root may delete what others can't."""
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-"))
    node = new_node()
    shutil.copytree(node.folder, folder, dirs_exist_ok=True)
    node.folder, node.programs = folder, folder / "programs"
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
        node.as_user.update(user=65534, group=65534, extra_groups=[])
    yield node
    shutil.rmtree(folder)


def test_folders_that_a_step_made_read_only_are_removed_too(account_node, job) -> None:
    ended = account_node.run(job("mkdir -p cache/module && touch cache/module/file && chmod -R a-w cache; id -u"))
    assert ended.code == 0
    assert not account_node.scratch.exists()


class TestCancelling:
    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
    def test_ends_the_step_skips_the_later_ones_and_removes_the_scratch(self, sent, node, job, tmp_path) -> None:
        process = node.start(job(f"touch {tmp_path}/running; exec sleep 30", f"touch {tmp_path}/later"))
        wait_for(tmp_path / "running")
        process.send_signal(sent)
        process.communicate(timeout=10)
        assert process.returncode == 143
        assert not node.scratch.exists()
        assert not (tmp_path / "later").exists()

    def test_lets_the_step_finish_what_it_does_on_the_signal(self, node, job, tmp_path) -> None:
        command = (
            f"trap 'sleep 0.3; cp data {tmp_path}/saved; exit 0' TERM\n"
            f"echo precious >data; touch {tmp_path}/running\n"
            "while :; do sleep 0.05; done"
        )
        process = node.start(job(command, f"touch {tmp_path}/later"))
        wait_for(tmp_path / "running")
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 143
        assert (tmp_path / "saved").read_text() == "precious\n"
        assert not (tmp_path / "later").exists()
        assert not node.scratch.exists()

    def test_twice_is_as_good_as_once(self, node, job, tmp_path) -> None:
        command = (
            f"trap 'touch {tmp_path}/ending; sleep 0.3; exit 0' TERM; touch {tmp_path}/running\n"
            "while :; do sleep 0.05; done"
        )
        process = node.start(job(command))
        wait_for(tmp_path / "running")
        process.terminate()
        wait_for(tmp_path / "ending")
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 143
        assert not node.scratch.exists()


class TestStartingTwice:
    def test_runs_nothing_the_second_time(self, node, job) -> None:
        assert node.run(job("echo once")).text == "once\n"
        again = node.run(job("echo once"))
        assert (again.code, again.text) == (EXIT_STARTED_BEFORE, "")
        assert b"started before" in again.errors
        assert len(node.srun_calls()) == 1

    def test_also_under_another_id_of_slurms(self, node, job) -> None:
        node.run(job("true"))
        node.job_id = "8"
        assert node.run(job("true")).code == EXIT_STARTED_BEFORE

    def test_also_after_a_failure(self, node, job) -> None:
        assert node.run(job("exit 3")).code == 3
        assert node.run(job("exit 3")).code == EXIT_STARTED_BEFORE

    def test_leaves_the_scratch_to_the_first(self, node, job, tmp_path) -> None:
        command = (
            f"echo mine >data; touch {tmp_path}/running; until test -e {tmp_path}/go; do sleep 0.02; done; cat data"
        )
        first = node.start(job(command))
        wait_for(tmp_path / "running")
        assert node.run(job("rm -r *")).code == EXIT_STARTED_BEFORE
        assert (node.scratch / "data").read_text() == "mine\n"
        (tmp_path / "go").touch()
        output, _ = first.communicate(timeout=10)
        assert (first.returncode, output) == (0, b"mine\n")
        assert not node.scratch.exists()

    def test_at_the_same_instant_lets_one_run(self, node, job) -> None:
        processes = [node.start(job("echo ran; sleep 0.2")) for _ in range(5)]
        outputs = [process.communicate(timeout=10)[0] for process in processes]
        assert sorted(process.returncode for process in processes) == [0, *[EXIT_STARTED_BEFORE] * 4]
        assert sorted(outputs) == [b"", b"", b"", b"", b"ran\n"]

    def test_is_no_matter_between_jobs(self, node, job) -> None:
        node.run(job("true"))
        node.job_name = "0x2b"
        assert node.run(job("echo another")).text == "another\n"


def test_a_shared_folder_that_cannot_be_written_is_not_told_as_a_second_start(node, job) -> None:
    node.variables["DEEPSQUARE_SHARED_ROOT"] = "/dev/null/no"
    ended = node.run(job("echo never"))
    assert ended.code not in (0, EXIT_STARTED_BEFORE)
    assert ended.text == ""
    assert b"started before" not in ended.errors


@pytest.mark.parametrize("missing", ["SLURM_JOB_NAME", "SLURM_JOB_ID"])
def test_outside_of_slurm_nothing_runs(missing: str, node, job) -> None:
    script = compile_workflow(from_dict(job("echo never")))
    ended = node.run(f"unset {missing}\n{script}")
    assert ended.code not in (0, EXIT_STARTED_BEFORE)
    assert ended.text == ""
