"""Images come from a real registry: by a real Apptainer, and by the Enroot of this machine or the double."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import TestAccount, new_account
from tests.apptainer import grid_options
from tests.enroot import IS_DOUBLE, KIND, enroot_program
from tests.images import busybox_root
from tests.registry import Registry, registry

IMAGE = "team/busybox"


@pytest.fixture(scope="module", params=["http", "https"])
def served(request: pytest.FixtureRequest, root: Path) -> Iterator[Registry]:
    with registry(https=request.param == "https") as made:
        made.push(
            IMAGE, "1.0", root, entrypoint=["/bin/echo", "it's"], cmd=["x y"], env=["OF_IMAGE=a b"], workdir="/srv/work"
        )
        yield made


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with busybox_root() as folder:
        yield folder


@pytest.fixture
def account() -> Iterator[TestAccount]:
    with new_account() as made:
        yield made


def test_it_asks_for_a_password(served: Registry) -> None:
    with served._client() as client:
        assert client.get(f"/v2/{IMAGE}/tags/list").json()["tags"] == ["1.0"]
        assert client.get(f"/v2/{IMAGE}/tags/list", auth=("tests", "wrong")).status_code == 401


def test_the_same_image_is_the_same_bytes(served: Registry, root: Path) -> None:
    assert served.push("team/again", "1", root) == served.push("team/again", "2", root)


# -------------------------------------------------------------------- Apptainer


def apptainer(account: TestAccount, served: Registry, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = grid_options("busybox")[-1]
    trust = {"SSL_CERT_FILE": str(served.certificate)} if served.certificate else {"APPTAINER_NOHTTPS": "true"}
    credentials = {"APPTAINER_DOCKER_USERNAME": served.user, "APPTAINER_DOCKER_PASSWORD": served.password}
    action, *arguments = command
    image = f"docker://{served.address}/{IMAGE}:1.0"
    return account.run(program, "--silent", action, image, *arguments, env=trust | credentials | env)


def test_apptainer_runs_an_image(account: TestAccount, served: Registry) -> None:
    before = len(served.requests(path="/blobs/"))
    told = apptainer(account, served, "exec", "sh", "-c", 'echo "$OF_IMAGE"; env | grep -c DOCKER')
    assert told.stdout.splitlines() == ["a b", "0"], told.stderr
    assert len(served.requests(path="/blobs/")) == before + 2
    assert apptainer(account, served, "run").stdout == "it's x y\n"
    # Kept: no blob is fetched again.
    assert len(served.requests(path="/blobs/")) == before + 2


@pytest.mark.parametrize(
    "wrong", [{"APPTAINER_DOCKER_PASSWORD": "wrong"}, {"APPTAINER_DOCKER_USERNAME": ""}], ids=["password", "nobody"]
)
def test_apptainer_is_refused(account: TestAccount, served: Registry, wrong: dict[str, str]) -> None:
    before = len(served.requests(path="/blobs/"))
    told = apptainer(account, served, "exec", "true", **wrong)
    assert told.returncode == 255
    assert "authentication required" in told.stderr
    assert len(served.requests(path="/blobs/")) == before


def test_apptainer_trusts_nobody_by_itself(account: TestAccount, served: Registry) -> None:
    told = apptainer(account, served, "exec", "true", APPTAINER_NOHTTPS="", SSL_CERT_FILE="")
    assert told.returncode == 255
    assert "certificate signed by unknown authority" in told.stderr or "HTTP response to HTTPS client" in told.stderr


# -------------------------------------------------------------------- Enroot


class Enroot:
    def __init__(self, account: TestAccount, served: Registry) -> None:
        self.account, self.served, self.program = account, served, enroot_program()[0]
        trust = {"CURL_CA_BUNDLE": str(served.certificate)} if served.certificate else {"ENROOT_ALLOW_HTTP": "yes"}
        self.env = trust | {"ENROOT_RUNTIME_PATH": f"{account.home}/run", "ENROOT_CONFIG_PATH": str(account.home)}

    def credentials(self, password: str, user: str = "tests") -> None:
        quoted = password.replace("\\", "\\\\").replace('"', '\\"')
        host = self.served.address.partition(":")[0]
        file = self.account.home / ".credentials"
        file.write_text(f'machine {host} login {user} password "{quoted}"\n')

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.account.run(self.program, *arguments, env=self.env | env, stdin=subprocess.DEVNULL)

    def pull(self, image: str = f"{IMAGE}:1.0", *, user: str = "tests@") -> subprocess.CompletedProcess[str]:
        self.file = f"{uuid.uuid4().hex[:8]}.sqsh"
        return self("import", "--output", self.file, "--", f"docker://{user}{self.served.address}#{image}")

    @property
    def kept(self) -> bool:
        return (self.account.home / self.file).exists()


@pytest.fixture(params=[KIND])
def enroot(account: TestAccount, served: Registry) -> Enroot:
    return Enroot(account, served)


def test_enroot_imports_an_image_and_runs_it(enroot: Enroot, served: Registry) -> None:
    before = len(served.requests(path="/blobs/"))
    enroot.credentials(served.password)
    told = enroot.pull()
    assert told.returncode == 0, told.stderr
    assert len(served.requests(path="/blobs/")) == before + 2
    assert enroot("create", "--name", "one", "--", enroot.file).returncode == 0
    assert enroot("start", "one").stdout == "it's x y\n"
    assert enroot("start", "one", "a b", "$HOME").stdout == "it's a b $HOME\n"
    script = 'exec /bin/sh -c "pwd; echo \\"\\$OF_IMAGE\\""\n'
    (enroot.account.home / ".local/share/enroot/one/etc/rc.local").write_text(script)
    assert enroot("start", "one").stdout == "/srv/work\na b\n"
    assert enroot.pull().returncode == 0
    assert len(served.requests(path="/blobs/")) == before + 2


def test_enroot_overwrites_no_file(enroot: Enroot, served: Registry) -> None:
    enroot.credentials(served.password)
    (enroot.account.home / "there.sqsh").write_text("mine")
    told = enroot("import", "-o", "there.sqsh", f"docker://tests@{served.address}#{IMAGE}:1.0")
    assert told.returncode == 1
    assert "already exists" in told.stderr
    assert (enroot.account.home / "there.sqsh").read_text() == "mine"


@pytest.mark.parametrize("how", ["wrong password", "another user", "no user", "no such image", "no such tag"])
def test_enroot_is_refused(enroot: Enroot, served: Registry, how: str) -> None:
    enroot.credentials("wrong" if how == "wrong password" else served.password)
    before = len(served.requests(path="/blobs/"))
    image = {"no such image": "team/none:1.0", "no such tag": f"{IMAGE}:none"}.get(how, f"{IMAGE}:1.0")
    user = {"another user": "other@", "no user": ""}.get(how, "tests@")
    if how == "no user":
        (enroot.account.home / ".credentials").unlink()
    told = enroot.pull(image, user=user)
    assert told.returncode == 1
    assert not enroot.kept
    assert served.password not in told.stderr
    assert len(served.requests(path="/blobs/")) == before


def test_the_password_is_in_no_command_line(enroot: Enroot, served: Registry) -> None:
    enroot.credentials(served.password)
    watch = subprocess.Popen(
        ["sh", "-c", "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null; done"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert enroot.pull().returncode == 0
    finally:
        watch.kill()
        seen, _ = watch.communicate()
    assert "import" in seen
    assert served.password not in seen


def test_a_user_may_be_left_to_the_credentials(enroot: Enroot, served: Registry) -> None:
    enroot.credentials(served.password)
    assert enroot.pull(user="").returncode == 0


def test_layers_lie_on_each_other(enroot: Enroot, served: Registry, root: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "upper").write_text("upper\n")
    served.push("team/two", "latest", root, tmp_path)
    enroot.credentials(served.password)
    assert enroot.pull("team/two").returncode == 0
    enroot("create", "-n", "two", enroot.file)
    assert enroot("start", "two", "cat", "/etc/upper").stdout == "upper\n"


@pytest.mark.skipif(not IS_DOUBLE, reason="the real one knows them")
def test_the_double_refuses_whiteouts(enroot: Enroot, served: Registry, root: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / ".wh.passwd").touch()
    served.push("team/without", "latest", root, tmp_path)
    enroot.credentials(served.password)
    told = enroot.pull("team/without")
    assert (told.returncode, "whiteouts" in told.stderr, enroot.kept) == (1, True, False)
