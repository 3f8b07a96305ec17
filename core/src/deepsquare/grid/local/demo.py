"""The demo: a grid, a real Snakemake pipeline on it, and the same pipeline without any grid, to compare."""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from deepsquare.errors import GridError
from deepsquare.grid.config import GridConfig
from deepsquare.grid.local.control import Report, Settings, up

_PLUGIN = "snakemake_executor_plugin_deepsquare"
_TOOLS = ("bwa", "samtools", "bcftools", "wgsim")
_STORAGE = "storage"
_RESULT = "results/variants.vcf.gz"
# One job that runs for longer than a minute shows that its bill goes by its time.
_LONG_SECONDS = 65
_JOBS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What `deepsquare demo` was asked for."""

    grid: Settings
    fresh: bool
    """Forget the results of before."""
    quick: bool
    """Two samples, and no long job."""
    image: str | None = None
    """The image that jobs run in, with Snakemake and the pipeline's tools; None: they run on the host."""


def run(settings: DemoSettings, say: Callable[[str], None], report: Report) -> None:
    """Start the grid, run the pipeline on it and without it, and compare the variants that both found.

    Args:
        settings: where and how.
        say: called at each step.
        report: called with the progress of the grid's start.

    Raises:
        GridError: something is missing or failed, or the results differ; the text says what to do.
    """
    python = _python_of_jobs(settings.grid.runtime)
    pipeline = _choose_pipeline(python, say)
    grid = settings.grid
    folder = grid.state / "demo" / pipeline
    if settings.image is not None:
        grid = replace(grid, binds=_binds(grid.state, folder / _STORAGE))
    say(f"starting the grid (state in {grid.state})")
    config = up(grid, report)
    if config.runtime is None:
        raise GridError(
            f"the grid runs without a Python for its jobs: deepsquare grid down --state {config.state}, then again"
        )
    if settings.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    _prepare(folder, pipeline, config)
    samples = ["samples=[alder, birch]"] if settings.quick else []
    seconds = 0 if settings.quick else _LONG_SECONDS
    image = [] if settings.image is None else ["--container-image", settings.image]
    say(" ".join(["running the pipeline on the grid: snakemake --executor deepsquare", *image]))
    _run_on_grid(folder, config, image, [*samples, f"repeat_seconds={seconds}", *_canary(folder)])
    say("running the same pipeline plainly on this machine, to compare")
    _run_plainly(folder, python, [*samples, "repeat_seconds=0"])
    say(_compare(folder / "local" / _RESULT, folder / _STORAGE / _RESULT))


def _binds(state: Path, storage: Path) -> list[Path]:
    """What jobs in containers have to see: the storage, beside what the grid shows them already."""
    present = GridConfig.load(state)
    shown = [] if present is None else present.binds
    return shown if storage in shown else [*shown, storage]


def _python_of_jobs(runtime: Path | None) -> Path:
    """The Python that jobs find, which must have Snakemake; this one has to have the executor."""
    for module, package in (("snakemake", "snakemake"), (_PLUGIN, "snakemake-executor-plugin-deepsquare")):
        if importlib.util.find_spec(module) is None:
            raise GridError(f"the demo needs {package} in this Python: pip install 'deepsquare[demo]'")
    python = (runtime or Path(sys.prefix)) / "bin" / "python"
    if not _succeeds(python, "import snakemake, snakemake_storage_plugin_fs"):
        raise GridError(
            f"{python} can't import snakemake and snakemake_storage_plugin_fs: pip install 'deepsquare[demo]'"
        )
    if os.geteuid() == 0:
        closed = [
            folder for folder in (*python.parents, *python.resolve().parents) if not folder.stat().st_mode & 0o001
        ]
        if closed:
            raise GridError(
                f"jobs run as an account of their own, which can't use {python}, since {closed[0]} is closed to others. Install "
                "deepsquare in a folder that everybody can read, name such an environment with --runtime, or don't be root"
            )
    return python


def _choose_pipeline(python: Path, say: Callable[[str], None]) -> str:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not _succeeds(python, "import matplotlib"):
        missing.append("matplotlib")
    if not missing:
        return "variants"
    say(f"without {', '.join(missing)}, which are not here: the pipeline in pure Python")
    return "variants_python"


def _succeeds(python: Path, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True, cwd="/").returncode == 0
    except OSError:
        return False


def _prepare(folder: Path, pipeline: str, config: GridConfig) -> None:
    """Make copies of the pipeline that only its user can enter, and the storage through which data travel."""
    # Whoever jobs run as must be able to pass, whatever the umask is.
    for path in (config.state / "demo", folder):
        path.mkdir(exist_ok=True)
        path.chmod(0o711)
    for name in ("work", "local"):
        with as_file(files(_PLUGIN) / "examples" / pipeline) as example:
            shutil.copytree(example, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        # copytree gives it the mode of the example.
        (folder / name).chmod(0o700)
    storage = folder / _STORAGE
    storage.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        # The account may have been made anew since the last time, with another number.
        subprocess.run(["chown", "-R", f"{config.account}:", storage], check=True)


def _canary(folder: Path) -> list[str]:
    """Where jobs have an account of their own, one tries to read a file of the submitter's, and must fail to."""
    if os.geteuid() != 0:
        return []
    canary = folder / "work" / "canary"
    canary.write_text("only the submitter may read this\n")
    canary.chmod(0o644)
    return [f"canary={canary}"]


def _run_on_grid(folder: Path, config: GridConfig, image: list[str], options: list[str]) -> None:
    command = [sys.executable, "-m", "snakemake", "--executor", "deepsquare", "--jobs", str(_JOBS_AT_ONCE)]
    command += ["--default-storage-provider", "fs", "--default-storage-prefix", str(folder / _STORAGE)]
    pipeline = subprocess.Popen(
        [*command, *image, "--config", *options],
        cwd=folder / "work",
        env=os.environ | {"DEEPSQUARE_CONTEXT": config.context},
    )
    try:
        code = pipeline.wait()
    except KeyboardInterrupt:
        # Snakemake got it, too: it cancels its jobs, and must not be killed while it does.
        pipeline.wait()
        raise
    if code != 0:
        raise GridError(
            "the pipeline did not finish on the grid; what it said is above, and more in: deepsquare job list"
        )


def _run_plainly(folder: Path, python: Path, options: list[str]) -> None:
    """With the software that the jobs had; what the tools say goes to a file."""
    log = folder / "local" / "log.txt"
    with log.open("wb") as file:
        ended = subprocess.run(
            [python, "-m", "snakemake", "--cores", str(os.cpu_count()), "--config", *options],
            check=False,
            cwd=folder / "local",
            env=os.environ | {"PATH": f"{python.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if ended.returncode != 0:
        raise GridError(f"the pipeline did not finish without the grid either: {log}")


def _compare(local: Path, grid: Path) -> str:
    """How the records of two runs differ.

    Raises:
        GridError: they do, or there are none.
    """
    here, there = _records(local), _records(grid)
    text = (
        f"variants: {len(here - there)} private to the local run, {len(there - here)} private to the grid run, "
        f"{len(here & there)} shared"
    )
    if here != there or not here:
        raise GridError(f"the two runs differ, which should never be. {text}: {local} and {grid}")
    return text


def _records(vcf: Path) -> set[str]:
    with gzip.open(vcf, "rt") as lines:
        return {line for line in lines if not line.startswith("#")}
