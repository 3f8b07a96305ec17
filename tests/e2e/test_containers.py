"""Every field of a step's container, by real Apptainer and by Enroot (or its double, which the ids then say), each row executed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apptainer import IMAGES
from tests.batch import Result, Runner
from tests.enroot import KIND
from tests.images import busybox_root
from tests.registry import Registry, registry
from tests.workflows import items, launch, run, variables

pytestmark = pytest.mark.slurm

ENROOT = f"enroot-{KIND}"
MEMORY = {"mem_mb": 300}
"""What making an image of a registry's takes."""


@pytest.fixture(scope="module", params=["apptainer", ENROOT])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inside(runtime: str, command: str, **fields: Any) -> dict[str, Any]:
    """A step in the image that the steps before it have put into the job's scratch."""
    container = {"image": f"/busybox.{'sif' if runtime == 'apptainer' else 'sqsh'}"} | fields.pop("container", {})
    if runtime == "apptainer":
        container["apptainer"] = True
    return run(command, container=container, **({"shell": "/bin/sh"} | fields))


async def in_image(runner: Runner, runtime: str, *steps: dict[str, Any], **fields: Any) -> Result:
    """A job whose scratch has the image first."""
    suffix = "sif" if runtime == "apptainer" else "sqsh"
    return await runner.run(run(f"cp {IMAGES}/busybox.{suffix} ."), *steps, **MEMORY, **fields)


async def prints(runner: Runner, runtime: str, *steps: dict[str, Any], **fields: Any) -> list[str]:
    result = await in_image(runner, runtime, *steps, **fields)
    assert result.code == 0, result
    return result.lines


async def test_a_command_runs_in_the_image_as_the_jobs_account(runner: Runner, runtime: str) -> None:
    look = 'busybox | head -n 1 | cut -c 1-7; pwd; id -u; [ -e /etc/debian_version ] || echo "not the host"; exit 3'
    result = await in_image(runner, runtime, inside(runtime, look))
    assert result.code == 3
    assert result.lines == ["BusyBox", "/deepsquare", str(runner.account.uid), "not the host"]


async def test_its_folders_are_the_jobs(runner: Runner, runtime: str) -> None:
    names = ["STORAGE_PATH", "DEEPSQUARE_INPUT", "DEEPSQUARE_OUTPUT", "DEEPSQUARE_ENV", "DEEPSQUARE_TMP"]
    names += [
        "DEEPSQUARE_SHARED_TMP",
        "DEEPSQUARE_SHARED_WORLD_TMP",
        "DEEPSQUARE_DISK_TMP",
        "DEEPSQUARE_DISK_WORLD_TMP",
    ]
    look = "".join(f'echo "${name}"; ' for name in names)
    touch = (
        'for f in "$DEEPSQUARE_TMP" "$DEEPSQUARE_DISK_TMP" "$DEEPSQUARE_OUTPUT"; do date >"$f/mark-$SLURM_JOB_ID"; done'
    )
    seen = 'for f in "$DEEPSQUARE_TMP" "$DEEPSQUARE_DISK_TMP" "$DEEPSQUARE_OUTPUT"; do ls "$f" | grep -c "mark-$SLURM_JOB_ID"; done'
    lines = await prints(runner, runtime, inside(runtime, look + touch), run(seen))
    paths = ["", "/input", "/output", "/env", "/tmp", "/tmp", "/world-tmp", "/disk/tmp", "/disk/world-tmp"]
    assert lines == [*(f"/deepsquare{path}" for path in paths), "1", "1", "1"]


ODD = "a b,c='$(x)\"\n\\ é"


async def test_variables_arrive_byte_for_byte_and_go_back(runner: Runner, runtime: str) -> None:
    steps = [
        run('echo "from=the host" >>$DEEPSQUARE_ENV'),
        inside(
            runtime,
            'printf "%s|" "$JOB" "$STEP" "$from" "$NTASKS" "$MEM"; echo; echo back=inside >>$DEEPSQUARE_ENV',
            env=variables(STEP=ODD),
        ),
        run('echo "$back|${STEP-none}"'),
    ]
    lines = await prints(runner, runtime, *steps, env=variables(JOB=ODD))
    assert "\n".join(lines) == f"{ODD}|{ODD}|the host|1|300|\ninside|none"


async def test_secrets_of_steps_are_in_no_command_line(runner: Runner, runtime: str) -> None:
    look = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null | grep -c 'hidden-[v]alue'"
    steps = [
        launch(inside(runtime, "sleep 600 # hidden-value", env=variables(SECRET="hidden-value"))),
        run(f"sleep 3; {look} || true"),
    ]
    assert await prints(runner, runtime, *steps, tasks=2) == ["0"]


async def test_a_container_sees_none_of_the_jobs_scripts_and_can_not_change_its_command(
    runner: Runner, runtime: str
) -> None:
    look = "grep -rl hidden-value /deepsquare 2>/dev/null | wc -l; (echo x >>/deepsquare-command) 2>/dev/null || echo closed"
    other = run("echo host", env=variables(SECRET="hidden-value"))
    lines = await prints(runner, runtime, inside(runtime, look), other, env=variables(JOB="hidden-value"))
    assert lines == ["0", "closed", "host"]


async def test_work_dir(runner: Runner, runtime: str) -> None:
    assert await prints(runner, runtime, inside(runtime, "pwd", workDir="/var/tmp")) == ["/var/tmp"]


async def test_a_work_dir_that_is_not_there_is_told(runner: Runner, runtime: str) -> None:
    result = await in_image(runner, runtime, inside(runtime, "echo never", workDir="/not there"))
    assert result.code != 0
    assert "never" not in result.lines
    assert "/not there" in result.text


async def test_the_root_can_be_written_and_each_step_has_its_own(runner: Runner, runtime: str) -> None:
    steps = [inside(runtime, "echo mine >/new; cat /new"), inside(runtime, "cat /new 2>/dev/null || echo gone")]
    assert await prints(runner, runtime, *steps) == ["mine", "gone"]


async def test_a_read_only_root(runner: Runner, runtime: str) -> None:
    look = "(echo x >/new) 2>/dev/null || echo closed; echo x >/tmp/new && echo tmp; echo x >new && echo scratch"
    lines = await prints(runner, runtime, inside(runtime, look, container={"readOnlyRootFS": True}))
    assert lines == ["closed", "tmp", "scratch"]


async def test_home(runner: Runner, runtime: str) -> None:
    steps = [
        run("echo hello >~/file; echo ~ >home"),
        inside(runtime, 'echo "$HOME"; cat ~/file'),
        inside(runtime, '[ "$HOME" = "$(cat home)" ] && cat ~/file', container={"mountHome": True}),
    ]
    assert await prints(runner, runtime, *steps) == ["/deepsquare/.deepsquare/home", "hello", "hello"]


async def test_x11_shows_the_hosts_sockets(runner: Runner, runtime: str) -> None:
    sockets = Path("/tmp/.X11-unix")
    sockets.mkdir(exist_ok=True)
    mark = sockets / f"X{os.getpid()}"
    mark.touch()
    try:
        steps = [
            inside(runtime, f"ls {mark}; (echo x >{sockets}/new) 2>/dev/null || echo closed", container={"x11": True}),
            inside(runtime, f"[ -e {mark} ] || echo hidden"),
        ]
        assert await prints(runner, runtime, *steps) == [str(mark), "closed", "hidden"]
    finally:
        mark.unlink()


async def test_mounts(runner: Runner, runtime: str) -> None:
    folder = runner.root / 'data, "set"'
    (folder / "sub").mkdir(parents=True)
    folder.chmod(0o777)
    (folder / "file").write_text("data\n")
    mounts = [
        {"hostDir": str(folder), "containerDir": "/closed", "options": "ro"},
        {"hostDir": str(folder), "containerDir": "/open place", "options": "rw"},
        {"hostDir": str(folder / "sub"), "containerDir": "/plain", "options": ""},
    ]
    look = 'cat /closed/file; (echo x >/closed/new) 2>/dev/null || echo closed; echo x >"/open place/new"; ls /plain'
    lines = await prints(runner, runtime, inside(runtime, look, container={"mounts": mounts}))
    assert lines == ["data", "closed"]
    assert (folder / "new").read_text() == "x\n"
    shutil.rmtree(folder)


async def test_shells(runner: Runner, runtime: str) -> None:
    look = 'readlink /proc/$$/exe | sed "s|.*/||"'
    # The image has no bash.
    steps = [inside(runtime, look, shell=shell) for shell in (None, "/bin/sh", "/bin/ash")]
    assert await prints(runner, runtime, *steps) == ["busybox"] * 3


async def test_a_mapped_user(runner: Runner, runtime: str) -> None:
    steps = [
        inside(runtime, "id -u; id -g; echo made >made", mapUid=0, mapGid=0),
        inside(runtime, "id -u; id -g", mapUid=4242, mapGid=2424),
        run('stat -c %U made | grep -c "^$(id -un)$"'),
    ]
    assert await prints(runner, runtime, *steps) == ["0", "0", "4242", "2424", "1"]


@pytest.mark.parametrize("network", ["slirp4netns", "pasta"])
async def test_a_network_of_its_own(runner: Runner, runtime: str, network: str) -> None:
    Path("/dev/net/tun").chmod(0o666)
    look = (
        "sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev | sort | tr '\\n' ' '; echo; cat /etc/resolv.conf; id -u"
    )
    lines = await prints(runner, runtime, inside(runtime, look, network=network, dns=["192.0.2.53"]))
    assert [line.strip() for line in lines] == ["lo net0", "nameserver 192.0.2.53", str(runner.account.uid)]


async def test_tasks_of_a_step_share_its_container(runner: Runner, runtime: str) -> None:
    command = 'echo "$SLURM_PROCID" >"rank-$SLURM_PROCID"; echo "rank $SLURM_PROCID"'
    step = inside(runtime, command, resources={"tasks": 2})
    lines = await prints(runner, runtime, step, run("ls -d rank-* | wc -l"), tasks=2)
    assert sorted(lines) == ["2", "rank 0", "rank 1"]


async def test_signals_reach_the_command(runner: Runner, runtime: str) -> None:
    job_id, output = await runner.submit(
        [
            run(f"cp {IMAGES}/busybox.* ."),
            inside(runtime, "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.1; done"),
        ]
    )
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    result = await runner.result(job_id, output)
    assert "told" in result.lines


async def test_steps_side_by_side_and_in_loops(runner: Runner, runtime: str) -> None:
    loop = items("a", "b", "c", parallel=True, steps=[inside(runtime, 'echo "$item" >/own; cat /own')])
    assert sorted(await prints(runner, runtime, loop, tasks=2)) == ["a", "b", "c"]


async def test_an_image_that_is_not_there_is_told(runner: Runner, runtime: str) -> None:
    result = await runner.run(inside(runtime, "echo never", container={"image": "/no/such image"}))
    assert (result.code, result.lines) == (1, ["There is no image no/such image below STORAGE_PATH"])


async def test_nothing_stays_of_unpacked_images(runner: Runner, runtime: str) -> None:
    step = inside(runtime, "mkdir /closed && echo x >/closed/file && chmod 0 /closed")
    look = run('ls -d "$STORAGE_PATH"/../.*/enroot/data/* 2>/dev/null | wc -l')
    assert await prints(runner, runtime, step, step, look) == ["0"]
    assert [path.name for path in runner.shared.iterdir()] == ["started"]


# ---------------------------------------------------------------------- registries


@pytest.fixture(scope="module")
def store(runtime: str) -> Iterator[Registry]:
    """A real registry with an account, and two images in it."""
    # Enroot's file of credentials can't have any password.
    with (
        registry(**({} if runtime == "apptainer" else {"password": "p'a$s\"w%rd:`x`&#1"})) as made,
        busybox_root() as root,
    ):
        (root / "entry").write_text(
            '#!/bin/sh\nprintf "entry:"; printf "<%s>" "$@"; echo; echo "$IMAGES|$JOB|$STEP|$PWD"\n'
        )
        (root / "entry").chmod(0o755)
        (root / "home of it").mkdir()
        made.push("team/tool", "1.0", root, env=["IMAGES=own", "JOB=image", "STEP=image", "PATH=/bin:/own"])
        made.push(
            "team/entry",
            "1.0",
            root,
            entrypoint=["/entry", "fixed"],
            env=["IMAGES=own", "PATH=/bin"],
            workdir="/home of it",
        )
        yield made


@pytest.fixture
def registries(runner: Runner) -> Iterator[None]:
    """The test's registry speaks HTTP, which an operator allows in the environment of jobs."""
    runner.variables |= {"APPTAINER_NOHTTPS": "true", "ENROOT_ALLOW_HTTP": "yes"}
    yield
    for name in ("APPTAINER_NOHTTPS", "ENROOT_ALLOW_HTTP"):
        del runner.variables[name]


def from_registry(
    runtime: str, store: Registry, command: str, image: str = "team/tool:1.0", **fields: Any
) -> dict[str, Any]:
    container = {"registry": store.address, "image": image, "username": store.user, "password": store.password}
    if runtime == "apptainer":
        container["apptainer"] = True
    return run(command, container=container | fields.pop("container", {}), **({"shell": "/bin/sh"} | fields))


@pytest.mark.usefixtures("registries")
async def test_images_of_registries_are_fetched_once_a_job(runner: Runner, runtime: str, store: Registry) -> None:
    before = len(store.requests(path="/blobs/"))
    step = from_registry(runtime, store, "echo ran")
    again = from_registry(runtime, store, "echo again", container={"readOnlyRootFS": True})
    never = from_registry(runtime, store, "echo never", image="team/none:1.0")
    steps = [items("a", "b", parallel=True, steps=[step]), again, {"if": "1 -eq 2", **never}]
    result = await runner.run(*steps, **MEMORY, tasks=2)
    assert (result.code, result.lines) == (0, ["ran", "ran", "again"])
    # The image's configuration, and its only layer.
    assert len(store.requests(path="/blobs/")) - before == 2


@pytest.mark.usefixtures("registries")
async def test_variables_have_the_precedence_of_the_language(runner: Runner, runtime: str, store: Registry) -> None:
    step = from_registry(runtime, store, 'echo "$IMAGES|$JOB|$STEP|$ONLY|$PATH"', env=variables(STEP="step"))
    result = await runner.run(step, **MEMORY, env=variables(JOB="job", ONLY="job", STEP="job"))
    # Apptainer adds folders of its own.
    (line,) = result.lines
    assert line.startswith("own|image|step|job|/bin:/own")


@pytest.mark.usefixtures("registries")
async def test_an_entry_point(runner: Runner, runtime: str, store: Registry) -> None:
    fields = {"image": "team/entry:1.0", "shell": "ENTRYPOINT", "env": variables(STEP=ODD)}
    steps = [
        from_registry(runtime, store, "one 'two $(three)' \"it's\"", **fields),
        from_registry(runtime, store, "x", **fields, workDir="/home of it"),
        from_registry(runtime, store, "echo a shell instead", image="team/entry:1.0"),
    ]
    result = await runner.run(*steps, **MEMORY, env=variables(JOB="job"))
    assert "\n".join(result.lines) == (
        "entry:<fixed><one><two $(three)><it's>\n"
        f"own|job|{ODD}|/deepsquare\n"
        "entry:<fixed><x>\n"
        f"own|job|{ODD}|/home of it\n"
        "a shell instead"
    )


@pytest.mark.usefixtures("registries")
async def test_a_wrong_password_is_told_and_nothing_of_it_shown(runner: Runner, runtime: str, store: Registry) -> None:
    step = from_registry(runtime, store, "echo never", container={"password": "hidden-value"})
    result = await runner.run(step, **MEMORY)
    assert result.code == 1
    assert result.lines[-1] == "The image team/tool:1.0 could not be fetched."
    assert "hidden-value" not in result.text


async def test_images_that_the_provider_hosts(runner: Runner) -> None:
    container = {"image": "busybox", "deepsquareHosted": True}
    steps = [run("echo hosted", container=container, shell="/bin/sh")]
    assert (await runner.run(*steps)).lines == ["hosted"]
    result = await runner.run(run("echo never", container={"image": "no such", "deepsquareHosted": True}))
    assert (result.code, len(result.lines)) == (1, 1)
    assert result.lines[0].startswith("This provider has no image no such. It has: busybox busybox.sqsh")
