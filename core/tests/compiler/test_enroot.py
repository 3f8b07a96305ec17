"""Steps in Enroot: what a container is told, with a small double that carries it out; a larger one is in the end-to-end tests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from tests.strategies import text

# Keeps what it was asked for, and carries out what the container's shell would read, with a variable of the image's.
ENROOT = """\
#!/bin/bash
folder=${0%/*}/..
printf '%s\\0' "$@" >"$folder/$1"
[ "$1" != import ] || echo image >"$3"
[ "$1" = start ] || exit 0
cp "$3" "$folder/conf"
cp "$DEEPSQUARE_TASK.mounts" "$folder/mounts"
cp "$DEEPSQUARE_TASK.environ" "$folder/environ"
for shell in dash bash "busybox sh"; do
    command -v ${shell% *} >/dev/null || continue
    env -i K_image=image $shell "$DEEPSQUARE_TASK.rc" env --null >>"$folder/variables" || exit
done
"""


@pytest.fixture
def started(new_node, job):
    """The words, the files and the variables of a step's container."""

    def run(node: Any = None, env: Any = (), **fields: Any) -> Any:
        node = node or new_node()
        node.add_program("enroot", ENROOT)
        step = {"command": "true", "workDir": "/", "container": {"image": "library/alpine:3"}} | fields
        ended = node.run(job('echo from=later >>"$DEEPSQUARE_ENV"', step, env=list(env)))
        assert ended.code == 0, ended
        return node

    return run


def variables_of(node: Any) -> dict[str, set[str]]:
    """Each variable with its values in all shells."""
    found: dict[str, set[str]] = {}
    for entry in (node.folder / "variables").read_bytes().decode().split("\0")[:-1]:
        key, _, value = entry.partition("=")
        found.setdefault(key, set()).add(value)
    return found


@settings(max_examples=40, deadline=None)
@given(job_value=text, step_value=text)
def test_any_text_arrives_byte_for_byte_in_all_shells(job_value: str, step_value: str, new_node, job) -> None:
    node = new_node()
    node.add_program("enroot", ENROOT)
    step = {"command": "true", "workDir": "/", "container": {"image": "library/alpine:3"}}
    env = [{"key": "JOB", "value": job_value}, {"key": "K_image", "value": "job"}, {"key": "STEP", "value": "job"}]
    ended = node.run(job(step | {"env": [{"key": "STEP", "value": step_value}]}, env=env))
    assert ended.code == 0, ended
    seen = variables_of(node)
    assert (seen["JOB"], seen["STEP"], seen["K_image"]) == ({job_value}, {step_value}, {"image"})


def test_the_folders_are_those_inside(started) -> None:
    seen = variables_of(started())
    names = ("STORAGE_PATH", "DEEPSQUARE_ENV", "DEEPSQUARE_DISK_WORLD_TMP", "HOME", "from")
    assert [seen[name] for name in names] == [
        {"/deepsquare"},
        {"/deepsquare/env"},
        {"/deepsquare/disk/world-tmp"},
        {"/deepsquare/.deepsquare/home"},
        {"later"},
    ]


def test_no_value_of_a_customer_is_in_a_command_line_or_in_enroots_own_environment(started) -> None:
    secret = {"key": "TOKEN", "value": "hidden-value"}
    node = started(env=[secret])
    words = b"".join((node.folder / name).read_bytes() for name in ("import", "create", "start", "environ"))
    assert b"hidden-value" not in words


@pytest.mark.parametrize(("read_only", "writable"), [(True, "no"), (None, "yes")])
def test_the_root(started, read_only: bool | None, writable: str) -> None:
    node = started(container={"image": "a", "readOnlyRootFS": read_only})
    assert f"#ENROOT_ROOTFS_WRITABLE={writable}\n" in (node.folder / "conf").read_text()


def test_mounts_have_the_escapes_of_fstab(started) -> None:
    mount = {"hostDir": "/a b\\c", "containerDir": "/tab\there", "options": "ro"}
    node = started(container={"image": "a", "mounts": [mount]})
    lines = (node.folder / "mounts").read_text().splitlines()
    assert "/a\\040b\\134c /tab\\011here none x-create=auto,bind,ro" in lines
    # The path of this test has a space.
    assert lines[0] == f"{str(node.scratch).replace(' ', chr(92) + '040')} /deepsquare none x-create=dir,bind,rw"


def test_an_import_has_its_account_in_a_file(started) -> None:
    container = {"image": "team/tool:1", "registry": "registry.example:5000", "username": "me", "password": "geheim"}
    node = started(container=container)
    words = (node.folder / "import").read_text().split("\0")
    assert words[-2] == "docker://me@registry.example:5000#team/tool:1"
    assert "geheim" not in "".join(words)
