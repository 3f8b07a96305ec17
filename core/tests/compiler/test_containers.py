"""Steps in containers, with a small double of Apptainer that notes what it is given; the real one is in the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Its words and its environment, each ended by a NUL.
APPTAINER = """\
#!/bin/bash
if [ "$2" = pull ]; then
    printf '%s\\0' "$@" >"${0%/*}/../pulled"
    env --null >"${0%/*}/../pulled-by"
    echo image >"$4"
    exit
fi
printf '%s\\0' "$@" >"${0%/*}/../words"
env --null >"${0%/*}/../variables"
"""


@pytest.fixture
def started(node, job, tmp_path: Path):
    """What Apptainer was asked for, and the environment that it had."""
    node.add_program("apptainer", APPTAINER)
    images = tmp_path / "images"
    images.mkdir()
    (images / "tool.sif").touch()
    (images / "odd name").mkdir()
    node.variables["DEEPSQUARE_IMAGES_ROOT"] = str(images)

    def run(container: dict, job_env: list | None = None, **fields: object) -> tuple[list[str], dict[str, str]]:
        ended = node.run(job({"command": "echo 'hello'", "container": container} | fields, env=job_env or []))
        assert ended.code == 0, ended
        words = (node.folder / "words").read_text().split("\0")[:-1]
        variables = (node.folder / "variables").read_text().split("\0")[:-1]
        return words, dict(line.split("=", 1) for line in variables)

    return run


def test_the_command_line_shows_neither_command_nor_variables(started, node, tmp_path: Path) -> None:
    words, _ = started({"image": "tool", "deepsquareHosted": True}, job_env=[{"key": "A", "value": "secret"}])
    scratch = node.scratch
    assert words == [
        "--silent",
        "exec",
        "--no-eval",
        "--contain",
        "--workdir",
        f"{scratch}/.deepsquare/container",
        "--writable-tmpfs",
        "--home",
        f"{scratch}/.deepsquare/home:/deepsquare/.deepsquare/home",
        "--pwd",
        "/deepsquare",
        "--bind",
        f"{scratch}:/deepsquare",
        "--bind",
        f"{node.private}/command-1:/deepsquare-command:ro",
        *("--bind", f"{node.folder}/persistent/user-{scratch.parent.name}:/deepsquare/tmp"),
        *("--bind", f"{node.folder}/world-tmp:/deepsquare/world-tmp"),
        *("--bind", f"{node.folder}/disk/tmp/user-{scratch.parent.name}:/deepsquare/disk/tmp"),
        *("--bind", f"{node.folder}/disk/world-tmp:/deepsquare/disk/world-tmp"),
        "--",
        f"{tmp_path}/images/tool.sif",
        "/bin/sh",
        "/deepsquare-command",
    ]


@pytest.mark.parametrize(
    ("container", "image"),
    [
        ({"image": "tool.sif", "deepsquareHosted": True}, "{images}/tool.sif"),
        ({"image": "odd name", "deepsquareHosted": True}, "{images}/odd name"),
        ({"image": "library/alpine:3", "apptainer": True}, "{private}/images/1.sif"),
    ],
)
def test_ways_to_an_image(container: dict, image: str, started, node, tmp_path: Path) -> None:
    words, _ = started(container)
    assert words[words.index("--") + 1] == image.format(images=tmp_path / "images", private=node.private)


@pytest.mark.parametrize(
    ("container", "source"),
    [
        ({"image": "library/alpine:3"}, "docker://library/alpine:3"),
        ({"image": "a/b", "registry": "registry.example:5000"}, "docker://registry.example:5000/a/b"),
        ({"image": "$(touch x)'"}, "docker://$(touch x)'"),
    ],
)
def test_images_of_registries_are_pulled_before(container: dict, source: str, started, node) -> None:
    started(container | {"apptainer": True, "username": "me", "password": "geheim"})
    words = (node.folder / "pulled").read_text().split("\0")[:-1]
    part, found = words[-2:]
    assert (words[:-2], found) == (["--silent", "pull", "--disable-cache"], source)
    assert part.startswith(f"{node.private}/images/1.sif.")


def test_credentials_of_an_image_are_gone_once_it_is_there(node, job) -> None:
    node.add_program("apptainer", APPTAINER)
    container = {"image": "a", "apptainer": True, "username": "me", "password": "geheim"}
    step = {"command": "true", "container": container}
    look = 'grep -rl "geh[e]im" "$STORAGE_PATH"/../.0x*; echo looked'
    # The second step needs the image again.
    ended = node.run(job(step, look, step))
    assert (ended.code, ended.text) == (0, "looked\n"), ended


@pytest.mark.parametrize(
    "container", [{"image": "nope", "deepsquareHosted": True}, {"image": "/no.sif", "apptainer": True}]
)
def test_an_image_that_is_not_there_is_told(container: dict, node, job) -> None:
    node.add_program("apptainer", APPTAINER)
    ended = node.run(job({"command": "true", "container": container}))
    assert ended.code == 1
    assert container["image"].lstrip("/") in ended.text
    assert not (node.folder / "words").exists()


def test_variables_go_in_by_the_environment_and_paths_are_those_inside(started) -> None:
    odd = "a b,c='$(x)\n"
    _, variables = started(
        {"image": "tool", "deepsquareHosted": True},
        job_env=[{"key": "JOB", "value": odd}, {"key": "image", "value": "of the job"}],
        env=[{"key": "STEP", "value": odd}],
    )
    assert (variables["JOB"], variables["image"], variables["APPTAINERENV_STEP"]) == (odd, "of the job", odd)
    assert {name: variables[name] for name in ("STORAGE_PATH", "DEEPSQUARE_ENV", "DEEPSQUARE_DISK_WORLD_TMP")} == {
        "STORAGE_PATH": "/deepsquare",
        "DEEPSQUARE_ENV": "/deepsquare/env",
        "DEEPSQUARE_DISK_WORLD_TMP": "/deepsquare/disk/world-tmp",
    }


def test_options_of_a_container(started) -> None:
    container = {"image": "x", "apptainer": True, "readOnlyRootFS": True, "mountHome": True}
    words, _ = started(container, workDir="/some where", shell="/bin/sh")
    assert "--writable-tmpfs" not in words
    home = words[words.index("--home") + 1]
    assert home.partition(":")[0] == home.partition(":")[2] == words[words.index("--bind") + 1]
    assert words[words.index("--pwd") + 1] == "/some where"
    assert words[-2:] == ["/bin/sh", "/deepsquare-command"]


def test_the_providers_own_folders_are_bound(started, node) -> None:
    node.variables["DEEPSQUARE_BINDS"] = "/data sets:/references"
    words, variables = started({"image": "x", "apptainer": True}, job_env=[{"key": "bind", "value": "of the job"}])
    assert words[words.index("--") - 4 : words.index("--")] == ["--bind", "/data sets", "--bind", "/references"]
    assert variables["bind"] == "of the job"


def test_an_entry_point_gets_the_words_of_the_command(started) -> None:
    words, _ = started({"image": "x", "apptainer": True}, shell="ENTRYPOINT", command="one 'two three' $(four)")
    assert words[1] == "run"
    assert words[words.index("--") + 2 :] == ["one", "two three", "$(four)"]


# No NUL, which no program can be given.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=40, deadline=None)
@given(
    image=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/:."), min_size=1, max_size=20),
    folder=TEXT,
    value=TEXT,
)
def test_any_text_arrives_byte_for_byte(image: str, folder: str, value: str, new_node, job) -> None:
    node = new_node()
    node.add_program("apptainer", APPTAINER)
    container = {"image": image, "apptainer": True, "username": value, "password": value}
    run = {"command": "true", "container": container, "workDir": f"/{folder}", "env": [{"key": "STEP", "value": value}]}
    ended = node.run(job(run, env=[{"key": "JOB", "value": value}]))
    assert (ended.code, ended.output, ended.errors) == (0, b"", b"")
    words = (node.folder / "words").read_bytes().split(b"\0")
    variables = set((node.folder / "variables").read_bytes().split(b"\0"))
    assert f"/{folder}".encode() == words[words.index(b"--pwd") + 1]
    assert variables >= {f"{name}={value}".encode() for name in ("JOB", "APPTAINERENV_STEP")}
    assert f"docker://{image}".encode() in (node.folder / "pulled").read_bytes().split(b"\0")
    pulled_by = set((node.folder / "pulled-by").read_bytes().split(b"\0"))
    names = ("APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD")
    assert pulled_by >= {f"{name}={value}".encode() for name in names}
    # Of the registry's account the step knows nothing, and of the job's variables the registry.
    assert not any(line.startswith(b"APPTAINER_DOCKER") for line in variables)
    assert not any(line.startswith((b"JOB=", b"APPTAINERENV_")) for line in pulled_by)


def test_launchers_of_containers_are_clean(job, complaints) -> None:
    container = {"image": "x y", "deepsquareHosted": True, "username": "u", "password": "p"}
    run = {"command": "true", "container": container, "resources": {"gpusPerTask": 1}}
    assert complaints(job(run)) == ""
