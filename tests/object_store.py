"""Stores that speak S3, for tests: a real one, SeaweedFS; and a double, the server of moto."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest

from tests.conftest import BIN
from tests.ports import free_port, free_ports

REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """A store that runs. The names of buckets have three letters at least."""

    url: str
    region: str = REGION
    access_key_id: str = field(default_factory=lambda: f"AKIA{secrets.token_hex(8).upper()}")
    # Random, so that a test may look for it wherever it should not be; with characters that want to be quoted.
    secret_key: str = field(default_factory=lambda: f"{secrets.token_hex(16)}/+=")

    @property
    def env(self) -> dict[str, str]:
        """The variables by which s5cmd and others know it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "S3_ENDPOINT_URL": self.url,
        }

    def bucket(self, name: str) -> str:
        """Make a bucket, and return its name."""
        self._client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket: str, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def keys(self, bucket: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    @cached_property
    def _client(self) -> Any:
        # What sums newer clients send by themselves, older servers don't know.
        settings = botocore.config.Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required", retries={"max_attempts": 1}
        )
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_key,
            config=settings,
        )


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A real store, which checks who asks."""
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
    store = ObjectStore(f"http://127.0.0.1:{s3}")
    key = {"accessKey": store.access_key_id, "secretKey": store.secret_key}
    identity = {"name": "tests", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}

    def command(folder: Path) -> list[str | Path]:
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        return [
            *(_program("weed"), "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data"),
            # It would tell its makers about itself.
            "-master.telemetry=false",
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=2000"),
            *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", f"-filer.localSocket={folder}/filer"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={folder}/s3.json"),
            *(f"-s3.localSocket={folder}/s3", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]

    # A bucket can be made before anything can be put into it.
    def try_it() -> None:
        store.bucket("first-one")
        store.put("first-one", "key", b"")
        store._client.delete_object(Bucket="first-one", Key="key")
        store._client.delete_bucket(Bucket="first-one")

    try:
        with _running(command, try_it):
            yield store
    finally:
        # Where these go is fixed in the program.
        for name, port in (("master", master_grpc), ("volume", volume_grpc), ("filer", filer_grpc), ("s3", s3_grpc)):
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


@contextmanager
def object_store_double() -> Iterator[ObjectStore]:
    """A double, the server of moto: it checks nobody, and takes keys that the real one refuses, as ``a/../../b``."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    with _running(lambda _: [_program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], store._client.list_buckets):
        yield store


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"{name} is missing: integration/setup")
    return found


@contextmanager
def _running(command: Callable[[Path], list[str | Path]], try_it: Callable[[], object]) -> Iterator[None]:
    """Run a server in a folder of its own, from when a try succeeds."""
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-store-", dir="/tmp"))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command(folder), stdout=log, stderr=log, cwd=folder, env=os.environ | {"HOME": str(folder)}
        )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                try_it()
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"{error}\n{(folder / 'log').read_text()[-5000:]}")
                time.sleep(0.1)
            else:
                break
        yield
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
