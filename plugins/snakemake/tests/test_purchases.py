"""Whatever becomes of one purchase, the others are followed; and what may have been bought is looked for at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import deepsquare
import pytest
from deepsquare import JobStatus, PurchaseUnknownError
from snakemake.settings.types import RemoteExecutionSettings
from snakemake_executor_plugin_deepsquare import executor as module
from snakemake_executor_plugin_deepsquare.executor import Executor


@dataclass
class FakeInfo:
    id: str
    location_hash: str
    status: JobStatus = JobStatus.RUNNING


class FakeClient:
    """A grid on which a job does what its rule is called."""

    context = SimpleNamespace(name="local")
    account = "0x1"

    def __init__(self, _: str | None = None) -> None:
        self.infos: dict[str, FakeInfo] = {}
        self.workflows: list[Any] = []

    def submit(self, workflow: Any, *, labels: dict[str, str], **_: Any) -> Any:
        self.workflows.append(workflow)
        rule = labels["rule"]
        if rule == "invalid":
            raise ValueError("no such thing")
        if rule == "broken":
            raise ZeroDivisionError("a bug")
        info = FakeInfo(hex(len(self.infos) + 1), f"hash of {rule}")
        self.infos[info.id] = info
        if rule == "lost":
            raise PurchaseUnknownError(info.location_hash, "the chain is away")
        return SimpleNamespace(id=info.id, locked=1)

    def jobs(self, ids: Sequence[str] | None = None) -> list[FakeInfo]:
        return [self.infos[job] for job in (self.infos if ids is None else ids)]

    def cancel(self, ids: Sequence[str]) -> None:
        for job in ids:
            self.infos[job].status = JobStatus.CANCELLED


class Recorder(Executor):  # type: ignore[misc]
    """The executor without Snakemake: what it would be told is kept."""

    def __init__(self, image: str = RemoteExecutionSettings().container_image) -> None:
        self.submitted: list[str] = []
        self.errors: dict[str, str] = {}
        self.logger = logging.getLogger("snakemake")
        self.workflow = SimpleNamespace(
            executor_settings=SimpleNamespace(context=None, credits="1", default_runtime=10),
            storage_settings=SimpleNamespace(default_storage_provider="fs-elsewhere"),
            remote_execution_settings=SimpleNamespace(container_image=image),
        )
        self.__post_init__()
        self._sources_are_open = True

    def run_job_pre(self, job: Any) -> None: ...

    def format_job_exec(self, job: Any) -> str:
        return "true"

    def envvars(self) -> dict[str, str]:
        return {}

    def report_job_submission(self, job_info: Any) -> None:
        self.submitted.append(job_info.job.name)

    def report_job_error(self, job_info: Any, msg: str = "", **_: Any) -> None:
        self.errors[job_info.job.name] = msg


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(deepsquare, "BlockingClient", FakeClient, raising=False)
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)
    return Recorder()


def jobs(*rules: str) -> list[Any]:
    return [
        SimpleNamespace(name=rule, threads=1, resources={}, wildcards_dict={}, is_group=lambda: False) for rule in rules
    ]


def test_one_purchase_that_fails_leaves_the_others_of_its_batch_registered(executor: Recorder) -> None:
    executor.run_jobs(jobs("first", "invalid", "broken", "lost", "last"))
    assert executor.submitted == ["first", "last"]
    assert executor.errors["invalid"] == "DeepSquare: no such thing\n"
    assert executor.errors["broken"] == "DeepSquare: ZeroDivisionError: a bug\n"
    assert "may have been bought" in executor.errors["lost"]
    assert "deepsquare job list" in executor.errors["lost"]


def test_a_job_whose_purchase_is_unknown_is_found_cancelled_and_counted(
    executor: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.run_jobs(jobs("first", "lost"))
    executor._client.infos["0xff"] = FakeInfo("0xff", "hash of another run's job")
    executor.cancel_jobs([])
    statuses = {info.location_hash: info.status.name for info in executor._client.infos.values()}
    assert statuses == {
        "hash of first": "CANCELLED",
        "hash of lost": "CANCELLED",
        "hash of another run's job": "RUNNING",
    }
    assert sorted(executor._names.values()) == ["first", "lost"]


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize(("options", "image"), [({}, None), ({"image": "deepsquare://tools"}, "tools")])
def test_jobs_run_in_the_image_that_was_asked_for_and_on_the_host_without(
    options: dict[str, str], image: str | None
) -> None:
    executor = Recorder(**options)
    executor.run_jobs(jobs("first"))
    (run,) = executor._client.workflows[0].runs()
    assert (run.container and run.container.image) == image
