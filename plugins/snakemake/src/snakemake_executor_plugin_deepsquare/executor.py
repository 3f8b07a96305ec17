"""The executor: buys each Snakemake job on chain, and follows all of them with one look at a time."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.workflow import WorkflowExecutorInterface

from snakemake_executor_plugin_deepsquare.needs import describe, labels_of, task_of, time_limit_of
from snakemake_executor_plugin_deepsquare.settings import ExecutorSettings

if TYPE_CHECKING:
    from deepsquare import BlockingJob, JobInfo

_CHECK_SECONDS = 1
# Purchases at once: enough to hide the waiting, one wallet's transactions go out one after the other anyway.
_PURCHASES_AT_ONCE = 8
# How long the end of a cancelled run is waited for; the jobs' ends are reported on chain whether or not somebody waits.
_CANCEL_SECONDS = 60.0
_TAIL_LINES = 20


class Executor(RemoteExecutor):
    """Runs each job of a workflow as one job of the grid."""

    def __post_init__(self) -> None:
        """Connect to the grid; a run that can't buy anything ends here, before its first job."""
        from deepsquare import BlockingClient, DeepSquareError

        # Who drives Snakemake from Python need not give any.
        settings = self.workflow.executor_settings or ExecutorSettings()
        try:
            self._client = BlockingClient(settings.context)
        except DeepSquareError as error:
            raise WorkflowError(str(error)) from None
        # What `deepsquare cost --by run` adds up.
        self._run = {"run": f"{datetime.now():%Y-%m-%dT%H:%M:%S}-{secrets.token_hex(2)}"}
        self._credits: str | None = settings.credits
        self._default_runtime = timedelta(minutes=settings.default_runtime)
        self._image = _image_of(self.workflow)
        self._pool = ThreadPoolExecutor(_PURCHASES_AT_ONCE, thread_name_prefix="deepsquare-buy")
        self._purchases: list[Future[BlockingJob]] = []
        self._names: dict[str, str] = {}
        """What Snakemake calls each job that was bought, by its id, in the order of purchase."""
        self._lost: dict[str, str] = {}
        """The same of purchases whose answer was lost, by the location hash of the job that they may have made."""
        self._statuses: dict[str, str] = {}
        self._sources_are_open = self.workflow.storage_settings.default_storage_provider != "fs"
        self._is_away = False
        self._is_closed = False
        self.next_seconds_between_status_checks = _CHECK_SECONDS
        self.logger.info(f"DeepSquare: context {self._client.context.name}, account {self._client.account}")
        if self._image is not None:
            self.logger.info(f"DeepSquare: jobs run in the image {self._image}")

    # ------------------------------------------------------------------ buying

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Buy all jobs that are ready, several at once."""
        purchases = []
        for job in jobs:
            self.run_job_pre(job)
            purchases.append(self._buy(job))
        for job, purchase in zip(jobs, purchases, strict=True):
            self._register(job, purchase)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Buy one job."""
        self._register(job, self._buy(job))

    def _buy(self, job: JobExecutorInterface) -> Future[BlockingJob]:
        from deepsquare import PurchaseUnknownError
        from deepsquare.tasks import to_workflow

        if not self._sources_are_open:
            _open_as_usual(Path(self.workflow.source_archive.query))
            self._sources_are_open = True
        # In this thread: Snakemake's own objects are not made for several.
        command, env = self.format_job_exec(job), dict(self.envvars())

        def submit() -> BlockingJob:
            limit = None if self._credits is not None else time_limit_of(job, self._default_runtime)
            workflow = to_workflow(task_of(job, command, env, self._image))
            # Noted in here: an interrupt may come before anybody asks for the result.
            try:
                bought = self._client.submit(
                    workflow, time_limit=limit, credits=self._credits, labels=labels_of(job) | self._run
                )
            except PurchaseUnknownError as error:
                self._lost[error.location_hash] = describe(job)
                raise
            self._names[bought.id] = describe(job)
            return bought

        purchase = self._pool.submit(submit)
        self._purchases.append(purchase)
        return purchase

    def _register(self, job: JobExecutorInterface, purchase: Future[BlockingJob]) -> None:
        from deepsquare import DeepSquareError
        from deepsquare.tasks import short_id

        try:
            bought = purchase.result()
        except Exception as error:
            # Whatever it is, the other purchases of the batch must be registered, too.
            words = (
                str(error) if isinstance(error, DeepSquareError | ValueError) else f"{type(error).__name__}: {error}"
            )
            self.report_job_error(SubmittedJobInfo(job), msg=f"DeepSquare: {words}\n")
            return
        self.logger.info(f"DeepSquare: {describe(job)} is job {short_id(bought.id)}, {bought.locked:f} credits locked")
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=bought.id))

    # ------------------------------------------------------------------ following

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo]:
        """Report the jobs that ended, and yield the others: one look for all of them."""
        if not active_jobs:
            return
        infos = await asyncio.to_thread(self._look, [str(job.external_jobid) for job in active_jobs])
        for job in active_jobs:
            info = infos.get(str(job.external_jobid))
            if info is None:
                yield job
            elif isinstance(info, str):
                self.report_job_error(job, msg=f"{info}\n")
            elif self._is_hot(info):
                yield job
            elif info.status.name == "FINISHED":
                self.report_job_success(job)
            else:
                self.report_job_error(job, msg=await asyncio.to_thread(self._failure, info))

    def _look(self, ids: Sequence[str]) -> dict[str, JobInfo | str]:
        """How jobs stand, by id; one that the grid does not know gets a text instead. Empty while the grid can't be reached."""
        from deepsquare import DeepSquareError, UnknownJobError

        unknown: dict[str, JobInfo | str] = {}
        try:
            try:
                infos = self._client.jobs(ids)
            except UnknownJobError as error:
                unknown = dict.fromkeys(error.job_ids, str(error))
                infos = self._client.jobs([job_id for job_id in ids if job_id not in unknown])
        except DeepSquareError as error:
            # Jobs go on without us; what a long run has paid for must not be lost with its connection.
            if not self._is_away:
                self.logger.warning(f"DeepSquare: {error}. Jobs go on; looking again until it is back")
            self._is_away = True
            return {}
        if self._is_away:
            self._is_away = False
            self.logger.info("DeepSquare: the grid is back")
        return unknown | {info.id: info for info in infos}

    def _is_hot(self, info: JobInfo) -> bool:
        if not info.status.is_hot:
            return False
        if self._statuses.get(info.id) != info.status.name:
            self._statuses[info.id] = info.status.name
            where = f" at {info.provider}" if info.provider else ""
            self.logger.info(f"DeepSquare: {self._names[info.id]}: {info.status.name}{where}")
        return True

    def _failure(self, info: JobInfo) -> str:
        from deepsquare import DeepSquareError
        from deepsquare.tasks import failure_text

        try:
            tail = self._client.log_tail(info.id, _TAIL_LINES)
        except DeepSquareError as error:
            tail = [f"(its output can't be read: {error})"]
        return failure_text(info, tail) + "\n"

    # ------------------------------------------------------------------ ending

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Ask for the end of everything that this run bought and that is still hot, and wait for it for a while."""
        from deepsquare import DeepSquareError
        from deepsquare.tasks import short_id

        # Snakemake's list is empty while a look is under way, and never has what is being bought at this moment.
        for purchase in self._purchases:
            purchase.cancel()
        wait(self._purchases, timeout=_CANCEL_SECONDS)
        try:
            hot = self._hot_ids()
            if not hot:
                return
            self.logger.info(f"DeepSquare: cancelling {len(hot)} job(s); what they did not use comes back")
            self._client.cancel(hot)
            until = time.monotonic() + _CANCEL_SECONDS
            while (hot := self._hot_ids()) and time.monotonic() < until:
                time.sleep(_CHECK_SECONDS)
        except DeepSquareError as error:
            self.logger.error(f"DeepSquare: {error}. Jobs may still run: deepsquare job list, deepsquare job cancel ID")
            return
        if hot:
            self.logger.error(
                f"DeepSquare: still being cancelled: {', '.join(map(short_id, hot))} (deepsquare job list)"
            )

    def _hot_ids(self) -> list[str]:
        return [info.id for info in self._own_jobs() if info.status.is_hot]

    def _own_jobs(self) -> list[JobInfo]:
        """How everything stands that this run bought."""
        if self._lost:
            for info in self._client.jobs():
                if info.location_hash in self._lost:
                    self._names[info.id] = self._lost.pop(info.location_hash)
        return self._client.jobs(list(self._names))

    def shutdown(self) -> None:
        """Say what the run cost, and close."""
        super().shutdown()
        if self._is_closed:
            return
        self._is_closed = True
        self._pool.shutdown(wait=False)
        self._report_costs()
        self._client.close()

    def _report_costs(self) -> None:
        from deepsquare import DeepSquareError
        from deepsquare.tasks import CostRow, format_cost_table

        if not self._names and not self._lost:
            return
        try:
            infos = self._own_jobs()
        except DeepSquareError as error:
            self.logger.warning(f"DeepSquare: {error}. What the jobs cost: deepsquare cost")
            return
        rows = [CostRow(self._names[info.id], info) for info in infos]
        self.logger.info(f"DeepSquare: what the jobs took and cost, in credits\n{format_cost_table(rows)}")

    # ------------------------------------------------------------------ the command of a job

    def get_python_executable(self) -> str:
        """The provider's Python, which brings Snakemake and the storage plugins."""
        return "python"

    def additional_general_args(self) -> str:
        """A job works in its own scratch directory, whatever directory the submitter was told to use: the last one counts."""
        return "--directory ."


def _image_of(workflow: WorkflowExecutorInterface) -> str | None:
    """The image of `--container-image`; without the option, jobs run on the provider's hosts."""
    # It is not in the interface for plugins, and never empty: an image of Snakemake's own is its default.
    from snakemake.common import get_container_image

    image: str = workflow.remote_execution_settings.container_image
    return None if image == get_container_image() else image


def _open_as_usual(path: Path) -> None:
    """Give a file the mode that a new file of this user has.

    On a file system, Snakemake's archive of the sources has the mode of the temporary file that it is a copy of, so that jobs,
    which run as another account, could not read it.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
