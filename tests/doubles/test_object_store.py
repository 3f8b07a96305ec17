"""What s5cmd does with stores: on this the staging of jobs builds."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import pytest

from tests.object_store import ObjectStore, _program, object_store, object_store_double
from tests.ports import free_port

_HOST = {"AWS_EC2_METADATA_DISABLED": "true", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[ObjectStore]:
    with object_store() as made:
        yield made


@pytest.fixture(scope="module")
def double() -> Iterator[ObjectStore]:
    with object_store_double() as made:
        yield made


@pytest.fixture(params=["seaweedfs", "double"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    made: ObjectStore = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    return new_bucket(store)


def new_bucket(store: ObjectStore) -> str:
    return store.bucket(f"bucket-{uuid.uuid4().hex}")


def s5cmd(store: ObjectStore, *arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [_program("s5cmd"), "--retry-count", "1", *arguments],
        env=_HOST | store.env | env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert store.secret_key not in done.stdout + done.stderr
    return done


def download(store: ObjectStore, source: str, folder: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return s5cmd(store, "cp", "--source-region", store.region, source, folder, cwd=cwd, **env)


def upload(store: ObjectStore, target: str, *options: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return s5cmd(store, "sync", *options, "--destination-region", store.region, "from/", target, cwd=cwd, **env)


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_put_is_there(store: ObjectStore, bucket: str) -> None:
    store.put(bucket, "a/b c ü", b"content")
    assert store.keys(bucket) == ["a/b c ü"]
    assert store.get(bucket, "a/b c ü") == b"content"


# -------------------------------------------------------------------- download


def test_a_prefix_becomes_a_folder(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    names = ["a.txt", "sub/b.txt", ".hidden", "with space", "ünï", "star*[x]?", "per%25+", "quo'te\""]
    for name in names:
        store.put(bucket, f"in/{name}", name.encode())
    store.put(bucket, "in/emptied/", b"")
    store.put(bucket, "inner/other", b"")
    done = download(store, f"s3://{bucket}/in/*", "to/deep/", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "to/deep") == {name: name for name in names}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("s3://{bucket}/none/*", "no object found"),
        ("s3://{bucket}/none", "NoSuchKey"),
        ("s3://no-such-bucket-here/in/*", "NoSuchBucket"),
        ("s3://{bucket}/in/", "source argument must contain wildcard character"),
    ],
)
def test_nothing_to_download_fails(store: ObjectStore, bucket: str, tmp_path: Path, source: str, says: str) -> None:
    done = download(store, source.format(bucket=bucket), "to/", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert files_of(tmp_path) == {}


def test_links_in_the_way_are_followed(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    store.put(bucket, "in/sub/file", b"new")
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "sub").symlink_to("../outside")
    assert download(store, f"s3://{bucket}/in/*", "to/", tmp_path).returncode == 0
    assert files_of(tmp_path / "outside") == {"file": "new"}


# -------------------------------------------------------------------- upload


def test_a_folder_becomes_a_prefix(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    names = ["a.txt", "sub/b.txt", ".hidden", "with space", "ünï", "star*[x]?", "per%25+"]
    (tmp_path / "from" / "sub").mkdir(parents=True)
    (tmp_path / "from" / "empty").mkdir()
    for name in names:
        (tmp_path / "from" / name).write_text(name)
    done = upload(store, f"s3://{bucket}/out/", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(store.keys(bucket)) == sorted(f"out/{name}" for name in names)
    assert store.get(bucket, "out/sub/b.txt") == b"sub/b.txt"
    (tmp_path / "from" / "a.txt").unlink()
    assert upload(store, f"s3://{bucket}/out/", cwd=tmp_path).returncode == 0
    assert "out/a.txt" in store.keys(bucket)
    assert upload(store, f"s3://{bucket}/out/", "--delete", cwd=tmp_path).returncode == 0
    assert "out/a.txt" not in store.keys(bucket)


def test_an_empty_folder_uploads_nothing_and_may_empty_a_prefix(
    store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "from").mkdir()
    store.put(bucket, "out/before", b"")
    assert upload(store, f"s3://{bucket}/out/", cwd=tmp_path).returncode == 0
    assert store.keys(bucket) == ["out/before"]
    assert upload(store, f"s3://{bucket}/out/", "--delete", cwd=tmp_path).returncode == 0
    assert store.keys(bucket) == []


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("s3://{bucket}/out", "must be a bucket or a prefix"),
        ("s3://{bucket}/out*/", "can not contain glob characters"),
        ("s3://no-such-bucket-here/out/", "404"),
    ],
)
def test_targets_that_fail(store: ObjectStore, bucket: str, tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").touch()
    done = upload(store, target.format(bucket=bucket), cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert store.keys(bucket) == []


def test_a_folder_that_is_not_there_fails(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    assert upload(store, f"s3://{bucket}/out/", cwd=tmp_path).returncode == 1


def test_links_are_uploaded_as_what_they_lead_to_unless_told_otherwise(
    store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_text("in it")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "from" / "link").symlink_to("../secret")
    assert upload(store, f"s3://{bucket}/out/", "--no-follow-symlinks", cwd=tmp_path).returncode == 0
    assert store.keys(bucket) == ["out/file"]
    assert upload(store, f"s3://{bucket}/out/", cwd=tmp_path).returncode == 0
    assert store.get(bucket, "out/link") == b"outside"


def test_a_link_that_leads_nowhere_ends_the_upload_with_success(
    store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").touch()
    (tmp_path / "from" / "b").symlink_to("nowhere")
    (tmp_path / "from" / "c").touch()
    done = upload(store, f"s3://{bucket}/out/", cwd=tmp_path)
    assert (done.returncode, "not found" in done.stderr) == (0, True)
    assert "out/c" not in store.keys(bucket)
    assert upload(store, f"s3://{bucket}/out/", "--no-follow-symlinks", cwd=tmp_path).returncode == 0
    assert store.keys(bucket) == ["out/a", "out/c"]


# -------------------------------------------------------------------- who and where


def test_nobody_answers(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = download(store, f"s3://{bucket}/in/*", "to/", tmp_path, S3_ENDPOINT_URL=nowhere)
    assert (done.returncode, "connection refused" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "InvalidAccessKeyId"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "NoCredentialProviders"),
    ],
    ids=["secret", "id", "none"],
)
def test_wrong_credentials(seaweedfs: ObjectStore, tmp_path: Path, wrong: dict[str, str], says: str) -> None:
    bucket = new_bucket(seaweedfs)
    seaweedfs.put(bucket, "in/file", b"")
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").touch()
    for done in (
        download(seaweedfs, f"s3://{bucket}/in/*", "to/", tmp_path, **wrong),
        upload(seaweedfs, f"s3://{bucket}/out/", cwd=tmp_path, **wrong),
    ):
        assert done.returncode == 1
        assert says in done.stderr
    assert seaweedfs.keys(bucket) == ["in/file"]


def test_keys_that_climb_leave_the_folder(double: ObjectStore, tmp_path: Path) -> None:
    bucket = new_bucket(double)
    double.put(bucket, "in/../../escaped", b"out")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert download(double, f"s3://{bucket}/in/*", "to/", tmp_path / "a" / "b").returncode == 0
    assert files_of(tmp_path) == {"a/escaped": "out"}


def test_the_real_store_has_no_keys_that_climb(seaweedfs: ObjectStore) -> None:
    bucket = new_bucket(seaweedfs)
    with pytest.raises(botocore.exceptions.ClientError):
        seaweedfs.put(bucket, "in/../../escaped", b"out")
