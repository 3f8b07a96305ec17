"""A job's data: fetched before its steps and sent away after them, from and to a real web server and a real object store."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepsquare.grid.supervisor.schedulers.base import Phase

from tests.batch import Result, Runner
from tests.object_store import ObjectStore, object_store, object_store_double
from tests.web import Web, web
from tests.workflows import run

pytestmark = pytest.mark.slurm

LOOK = run('cd "$DEEPSQUARE_INPUT" && find . -type f | sort')


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as made:
        yield made


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    return store.bucket(f"bucket-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def site() -> Iterator[Web]:
    with web({}) as made:
        yield made


def s3(store: ObjectStore, bucket: str, folder: str, **fields: Any) -> dict[str, Any]:
    data = {
        "region": store.region,
        "bucketUrl": f"s3://{bucket}",
        "path": folder,
        "accessKeyId": store.access_key_id,
        "secretAccessKey": store.secret_key,
        "endpointUrl": store.url,
    }
    return {"s3": data | fields}


def http(url: str) -> dict[str, Any]:
    return {"http": {"url": url}}


async def job(runner: Runner, *steps: dict[str, Any], **fields: Any) -> Result:
    return await runner.run(*steps, mem_mb=500, **fields)


# ---------------------------------------------------------------------- the web, in


def packed(kind: str) -> bytes:
    """Two files, `a` and `folder/b`, packed."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", "1")
            archive.writestr("folder/b", "2")
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
            for name, text in (("a", b"1"), ("folder/b", b"2")):
                member = tarfile.TarInfo(name)
                member.size = len(text)
                member.mode = 0o400
                archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz", "zip"])
async def test_archives_are_unpacked_beside_themselves(runner: Runner, site: Web, kind: str) -> None:
    name = f"data.{kind}" if kind == "zip" else f"data.tar{'.' * bool(kind)}{kind}"
    site.files[f"/{name}?token=x"] = packed(kind)
    result = await job(runner, LOOK, input=http(f"{site.url}/{name}?token=x"))
    assert result.lines == ["Input contains:", "a", name, "folder/b", "./a", f"./{name}", "./folder/b"]


@pytest.mark.parametrize(
    ("name", "content", "files"),
    [
        ("table.csv.gz", gzip.compress(b"x,y\n"), ["./table.csv", "./table.csv.gz"]),
        ("table.csv.xz", lzma.compress(b"x,y\n"), ["./table.csv", "./table.csv.xz"]),
        ("data", gzip.compress(b"x,y\n"), ["./data"]),
        ("plain.txt", b"x,y\n", ["./plain.txt"]),
        ("empty", b"", ["./empty"]),
        ("some%20name%2Fx", b"x", ["./x"]),
        ("", b"x", ["./index.html"]),
        ("na'me%24(touch%20hacked)", b"x", ["./na'me$(touch hacked)"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_single_files(runner: Runner, site: Web, name: str, content: bytes, files: list[str]) -> None:
    site.files[f"/{name}"] = content
    result = await job(runner, LOOK, input=http(f"{site.url}/{name}"))
    assert result.lines[len(files) + 1 :] == files, result


async def test_an_archive_stays_whatever_is_in_it(runner: Runner, site: Web) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.pt", "inner")
        archive.writestr("other", "1")
    site.files["/model.pt"] = buffer.getvalue()
    step = run('cd "$DEEPSQUARE_INPUT"; head -c 2 model.pt; echo; ls -A')
    assert (await job(runner, step, input=http(f"{site.url}/model.pt"))).lines[-3:] == ["PK", "model.pt", "other"]


@pytest.mark.parametrize("mode", [0o555, 0])
@pytest.mark.parametrize("name", ["data.tar", ".unpacked"])
async def test_closed_folders_are_unpacked_too(runner: Runner, site: Web, name: str, mode: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type, folder.mode = tarfile.DIRTYPE, mode
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("folder/b"))
    site.files[f"/{name}"] = buffer.getvalue()
    result = await job(runner, LOOK, input=http(f"{site.url}/{name}"))
    assert result.lines[-2:] == [f"./{name}", "./folder/b"], result


async def test_a_damaged_archive_fails_the_job(runner: Runner, site: Web) -> None:
    site.files["/data.tar.gz"] = packed("gz")[:-40]
    result = await job(runner, run("echo never"), input=http(f"{site.url}/data.tar.gz"))
    assert result.code == 1
    assert "The input could not be unpacked" in result.text
    assert "never" not in result.lines


async def test_what_is_not_there_fails_the_job_and_its_url_is_not_shown(runner: Runner, site: Web) -> None:
    result = await job(runner, run("echo never"), input=http(f"{site.url}/none?token=hidden-value"))
    assert (result.code, result.lines[-1]) == (1, "The input could not be fetched from 127.0.0.1.")
    assert "404" in result.text
    assert "hidden-value" not in result.text


@pytest.mark.parametrize(("mode", "seen"), [(None, "700"), (448, "700"), (365, "555"), (0, "0")])
async def test_permissions(runner: Runner, site: Web, mode: int | None, seen: str) -> None:
    site.files["/file"] = b"x"
    result = await job(runner, run('stat -c %a "$DEEPSQUARE_INPUT"'), input=http(f"{site.url}/file"), inputMode=mode)
    assert result.lines[-1] == seen


async def test_redirects_are_followed(runner: Runner, site: Web) -> None:
    site.files["/there"] = b"x"
    site.redirects["/here"] = f"{site.url}/there"
    assert (await job(runner, LOOK, input=http(f"{site.url}/here"))).lines[-1] == "./here"


# ---------------------------------------------------------------------- the web, out


async def test_one_file_is_sent_as_it_is(runner: Runner, site: Web) -> None:
    step = run('''echo result >"$DEEPSQUARE_OUTPUT/it's \\$one.txt"''')
    result = await job(runner, step, output=http(f"{site.url}/up?token=hidden-value"))
    assert result.code == 0, result
    assert site.uploads == {"/up?token=hidden-value": b"result\n"}
    assert result.lines[:2] == ["Output contains:", "it's $one.txt"]
    assert "hidden-value" not in result.text


async def test_several_files_are_sent_as_one(runner: Runner, site: Web) -> None:
    step = run('cd "$DEEPSQUARE_OUTPUT"; echo 1 >a; mkdir d; echo 2 >d/b')
    await job(runner, step, output=http(f"{site.url}/up.zip"))
    with zipfile.ZipFile(io.BytesIO(site.uploads["/up.zip"])) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")} == {
            "output/a": b"1\n",
            "output/d/b": b"2\n",
        }


async def test_what_links_lead_to_is_sent_too(runner: Runner, site: Web) -> None:
    step = run('cd "$DEEPSQUARE_OUTPUT"; echo 1 >a; echo 2 >../b; ln -s ../b b')
    await job(runner, step, output=http(f"{site.url}/up.zip"))
    with zipfile.ZipFile(io.BytesIO(site.uploads["/up.zip"])) as archive:
        assert archive.read("output/b") == b"2\n"


@pytest.mark.parametrize(
    "command",
    [
        'cd "$DEEPSQUARE_OUTPUT"; echo 1 >../a; ln -s ../a a',
        'cd "$STORAGE_PATH"; mkdir real; echo 1 >real/a; rmdir output; ln -s real output',
    ],
)
async def test_one_file_behind_a_link_is_sent_as_it_is(runner: Runner, site: Web, command: str) -> None:
    result = await job(runner, run(command), output=http(f"{site.url}/up"))
    assert (result.lines, site.uploads) == (["Output contains:", "a"], {"/up": b"1\n"})


async def test_several_files_behind_a_link_are_sent_as_one(runner: Runner, site: Web) -> None:
    step = run('cd "$STORAGE_PATH"; mkdir real; echo 1 >real/a; echo 2 >real/b; rmdir output; ln -s real output')
    await job(runner, step, output=http(f"{site.url}/up.zip"))
    with zipfile.ZipFile(io.BytesIO(site.uploads["/up.zip"])) as archive:
        assert {name for name in archive.namelist() if not name.endswith("/")} == {"output/a", "output/b"}


async def test_without_a_file_nothing_is_sent(runner: Runner, site: Web) -> None:
    result = await job(runner, run('mkdir "$DEEPSQUARE_OUTPUT/empty"'), output=http(f"{site.url}/up"))
    assert (result.code, result.lines[-1], site.uploads) == (0, "There is no output; nothing is sent.", {})


CLOSED = 'cd "$DEEPSQUARE_OUTPUT"; echo 1 >a; echo 2 >b; mkdir d; echo 3 >d/c; chmod 0 d'


@pytest.mark.parametrize("command", [CLOSED, 'cd "$DEEPSQUARE_OUTPUT"; echo 1 >a; ln -s . again'])
async def test_output_that_can_not_be_read_is_not_sent_in_part(runner: Runner, site: Web, command: str) -> None:
    result = await job(runner, run(command), output=http(f"{site.url}/up"))
    assert (result.code, result.lines[-1], site.uploads) == (1, "The output could not be read.", {})


async def test_output_is_sent_all_the_time_only_to_s3(runner: Runner, site: Web) -> None:
    step = run('echo step; echo 1 >"$DEEPSQUARE_OUTPUT/a"')
    result = await job(runner, step, output=http(f"{site.url}/up"), continuousOutputSync=True)
    assert result.lines[:2] == ["continuousOutputSync counts only with output to S3; ignored here.", "step"]
    assert site.uploads == {"/up": b"1\n"}


async def test_a_failed_upload_fails_the_job(runner: Runner, site: Web) -> None:
    site.statuses["/up"] = 403
    result = await job(runner, run('echo x >"$DEEPSQUARE_OUTPUT/x"'), output=http(f"{site.url}/up"))
    assert (result.code, result.lines[-1]) == (1, "The output could not be sent.")


async def test_a_failed_job_sends_nothing(runner: Runner, site: Web) -> None:
    result = await job(runner, run('echo x >"$DEEPSQUARE_OUTPUT/x"; exit 3'), output=http(f"{site.url}/up"))
    assert (result.code, site.uploads) == (3, {})


# ---------------------------------------------------------------------- S3


async def test_a_folder_of_a_bucket_comes_and_goes(runner: Runner, store: ObjectStore, bucket: str) -> None:
    for key in ("in/a", "in/sub/b c", "other"):
        store.put(bucket, key, key.encode())
    step = run('cd "$DEEPSQUARE_INPUT" && find . -type f | sort && cp -r . "$DEEPSQUARE_OUTPUT"')
    result = await job(runner, step, input=s3(store, bucket, "/in/"), output=s3(store, bucket, "/out"))
    assert result.code == 0, result
    assert result.lines == ["Input contains:", "a", "sub/b c", "./a", "./sub/b c", "Output contains:", "a", "sub/b c"]
    assert store.keys(bucket) == ["in/a", "in/sub/b c", "other", "out/a", "out/sub/b c"]
    assert store.get(bucket, "out/sub/b c") == b"in/sub/b c"


async def test_the_beginning_of_names_is_enough(runner: Runner, store: ObjectStore, bucket: str) -> None:
    for key in ("run-1/a", "run-2/a", "other"):
        store.put(bucket, key, b"x")
    assert (await job(runner, LOOK, input=s3(store, bucket, "/run-"))).lines[-2:] == ["./run-1/a", "./run-2/a"]


@pytest.mark.parametrize(
    ("delete", "keys"), [(True, ["out/new", "out2/stays"]), (None, ["out/new", "out/old", "out2/stays"])]
)
async def test_delete_sync(
    runner: Runner, store: ObjectStore, bucket: str, delete: bool | None, keys: list[str]
) -> None:
    store.put(bucket, "out/old", b"x")
    store.put(bucket, "out2/stays", b"x")
    step = run('echo x >"$DEEPSQUARE_OUTPUT/new"')
    await job(runner, step, output=s3(store, bucket, "/out", deleteSync=delete))
    assert store.keys(bucket) == keys


@pytest.mark.parametrize(
    ("command", "code", "keys"),
    [
        ("exit 7", 7, ["out/a", "out/old", "out/z"]),
        ("true", 0, ["out/a", "out/old", "out/z"]),
        ("mkdir $DEEPSQUARE_OUTPUT/empty", 0, ["out/a", "out/old", "out/z"]),
        (CLOSED, 1, ["out/a", "out/old", "out/z"]),
        ("cd $DEEPSQUARE_OUTPUT; echo 2 >a; ln -s nowhere m; echo 2 >z", 1, ["out/a", "out/old", "out/z"]),
        ("echo 2 >$DEEPSQUARE_OUTPUT/a", 0, ["out/a"]),
    ],
)
@pytest.mark.parametrize("syncs", [True, None])
async def test_nothing_is_removed_but_for_what_is_whole(
    runner: Runner, store: ObjectStore, bucket: str, command: str, code: int, keys: list[str], syncs: bool | None
) -> None:
    for key in ("out/a", "out/old", "out/z"):
        store.put(bucket, key, b"1")
    output = s3(store, bucket, "/out", deleteSync=True)
    result = await job(runner, run(command), output=output, continuousOutputSync=syncs)
    assert (result.code, store.keys(bucket)) == (code, keys), result.text


async def test_older_files_of_the_same_size_are_sent(runner: Runner, store: ObjectStore, bucket: str) -> None:
    store.put(bucket, "out/x", b"AAAA")
    step = run("cd $DEEPSQUARE_OUTPUT; printf BBBB >x; touch -d yesterday x")
    await job(runner, step, output=s3(store, bucket, "/out"))
    assert store.get(bucket, "out/x") == b"BBBB"


async def test_keys_that_lead_out_of_the_folder_are_refused(runner: Runner) -> None:
    # Only the double takes such keys.
    with object_store_double() as store:
        bucket = store.bucket("bucket")
        store.put(bucket, "in/../../evil", b"x")
        store.put(bucket, "in/a..b", b"x")
        result = await job(runner, run("echo never"), input=s3(store, bucket, "/in/"))
        assert (result.code, result.lines[-1]) == (
            1,
            "The input could not be fetched: a key in the bucket has .. in it.",
        )
        result = await job(runner, LOOK, input=s3(store, bucket, "/in/a"))
        assert result.lines[-1] == "./a..b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secretAccessKey": "wrong"}, "SignatureDoesNotMatch"),
        ({"bucketUrl": "s3://no-such-bucket"}, "NoSuchBucket"),
        ({"path": "/nothing/"}, "no object found"),
        ({"path": "/nothing/"}, "The input could not be fetched from 127.0.0.1."),
        ({"endpointUrl": "http://127.0.0.1:1"}, "The store does not answer."),
    ],
)
async def test_what_can_not_be_fetched_fails_the_job(
    runner: Runner, store: ObjectStore, bucket: str, change: dict[str, Any], said: str
) -> None:
    result = await job(runner, run("echo never"), input=s3(store, bucket, "/in/", **change))
    assert result.code == 1
    assert said in result.text
    assert "never" not in result.lines
    assert store.secret_key not in result.text


async def test_output_that_can_not_be_read_fails_the_job(runner: Runner, store: ObjectStore, bucket: str) -> None:
    # s5cmd itself would say that all is well.
    step = run('cd "$DEEPSQUARE_OUTPUT"; echo x >z; ln -s nowhere a')
    result = await job(runner, step, output=s3(store, bucket, "/out"))
    assert (result.code, result.lines[-1]) == (1, "The output could not be sent.")


@pytest.mark.parametrize("syncs", [True, None])
async def test_output_may_be_a_link(runner: Runner, store: ObjectStore, bucket: str, syncs: bool | None) -> None:
    step = run('cd "$STORAGE_PATH"; mkdir -p real/d; echo 1 >real/d/a; rmdir output; ln -s real output')
    result = await job(runner, step, output=s3(store, bucket, "/out"), continuousOutputSync=syncs)
    assert (result.code, store.keys(bucket)) == (0, ["out/d/a"]), result


async def test_output_is_sent_all_the_time(runner: Runner, store: ObjectStore, bucket: str) -> None:
    steps = [run('echo 1 >"$DEEPSQUARE_OUTPUT/early"; touch up; until [ -e go ]; do sleep 0.2; done; exit 5')]
    job_id, output = await runner.submit(steps, mem_mb=500, output=s3(store, bucket, "/out"), continuousOutputSync=True)
    _until(lambda: "out/early" in store.keys(bucket))
    (scratch,) = (path for path in runner.shared.iterdir() if path.name.startswith("0x"))
    (scratch / "output" / "late").write_text("2")
    (scratch / "go").touch()
    result = await runner.result(job_id, output)
    assert result.code == 5
    assert store.keys(bucket) == ["out/early", "out/late"]


async def test_a_cancelled_job_sends_what_it_has(runner: Runner, store: ObjectStore, bucket: str) -> None:
    steps = [run('echo 1 >"$DEEPSQUARE_OUTPUT/a"; echo up; sleep 600')]
    job_id, output = await runner.submit(steps, mem_mb=500, output=s3(store, bucket, "/out"), continuousOutputSync=True)
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    assert (await runner.result(job_id, output)).phase is Phase.CANCELLED
    assert store.keys(bucket) == ["out/a"]


async def test_the_keys_of_the_input_are_gone_when_steps_run(runner: Runner, store: ObjectStore, bucket: str) -> None:
    store.put(bucket, "in/a", b"x")
    step = run(f'ls -A "$STORAGE_PATH"/../.0x*; grep -rl {store.secret_key} "$STORAGE_PATH"/../.0x*; true')
    result = await job(runner, step, input=s3(store, bucket, "/in/"))
    assert result.lines[:2] == ["Input contains:", "a"]
    assert not [line for line in result.lines if "input" in line], result


async def test_keys_are_in_no_command_line_and_no_environment_of_steps(
    runner: Runner, store: ObjectStore, bucket: str
) -> None:
    for number in range(200):
        store.put(bucket, f"in/{number}", b"x" * 1000)
    look = "env; for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/cmdline; done 2>/dev/null; true"
    fields = {"input": s3(store, bucket, "/in/"), "output": s3(store, bucket, "/out/"), "continuousOutputSync": True}
    job_id, output = await runner.submit([run(f"echo x >$DEEPSQUARE_OUTPUT/x; sleep 6; {look}")], mem_mb=500, **fields)
    seen = set()
    while not (await runner.scheduler.states())[-1][1].phase.is_end:
        seen |= set(subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout.split())
    result = await runner.result(job_id, output)
    assert result.code == 0
    assert any("s5cmd" in word for word in seen)
    assert not any(store.secret_key in text or store.access_key_id in text for text in (*seen, result.text))


def _until(holds: Any) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


async def test_nothing_is_left(runner: Runner) -> None:
    assert [path.name for path in runner.shared.iterdir()] == ["started"]
    assert not list(Path("/tmp").glob("output*.zip"))
