"""Modules from real git repositories, by the real git program. What needs https is in tests/e2e/test_modules_https.py."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from deepsquare.client.sbatch import WorkflowRejectedError, submit_workflow
from deepsquare.grid.sbatch_api import SbatchApi
from deepsquare.grid.sbatch_api import modules as modules_file
from deepsquare.grid.sbatch_api.addresses import Finder, is_public
from deepsquare.grid.sbatch_api.git import one_line
from deepsquare.grid.sbatch_api.modules import GitModules, Source
from deepsquare.workflow.modules import ModuleError

TEXT = "name: a\nsteps: []\n"


class Repository:
    """A git repository that tests write into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"} | identity
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, files: dict[str, str | bytes] | None = None) -> str:
        """Commit files; returns the commit."""
        for name, content in (files or {}).items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def repository(root: Path) -> Repository:
    return Repository(root / "git.example" / "a" / "modules")


@pytest.fixture
def modules(root: Path, tmp_path: Path):
    made = GitModules(tmp_path / "cache", file_root=root)
    yield made
    made.close()


def refusal(modules: GitModules, source: str) -> str:
    with pytest.raises(ModuleError) as caught:
        modules.fetch(source)
    return str(caught.value)


SOURCE = "git.example/a/modules"


def test_without_a_ref_it_is_the_head(repository: Repository, modules: GitModules) -> None:
    commit = repository.commit({"module.yaml": TEXT})
    fetched = modules.fetch(SOURCE)
    assert (fetched.text, fetched.commit) == (TEXT, commit)


@pytest.mark.parametrize("is_annotated", [False, True])
def test_tags_branches_and_folders(is_annotated: bool, repository: Repository, modules: GitModules) -> None:
    def tag(name: str) -> None:
        repository.git("tag", *(["--annotate", "--message", "x"] if is_annotated else []), name)

    first = repository.commit({"module.yaml": "root 1", "deep/er/module.yaml": "deep 1"})
    tag("v1")
    second = repository.commit({"module.yaml": "root 2", "deep/er/module.yaml": "deep 2"})
    tag("deep/er/v1")
    third = repository.commit({"module.yaml": "root 3", "deep/er/module.yaml": "deep 3"})
    repository.git("branch", "next")
    repository.commit({"module.yaml": "root 4"})
    repository.git("branch", "v1")

    def found(source: str) -> tuple[str, str]:
        fetched = modules.fetch(source)
        return fetched.text, fetched.commit

    # A tag before a branch, and the folder's own tag before the repository's.
    assert found(f"{SOURCE}@v1") == ("root 1", first)
    assert found(f"{SOURCE}/deep/er@v1") == ("deep 2", second)
    assert found(f"{SOURCE}/deep/er@next") == ("deep 3", third)
    assert found(f"{SOURCE}@deep/er/v1") == ("root 2", second)


@pytest.mark.parametrize("can_filter", [False, True])
def test_whole_and_short_commits(can_filter: bool, repository: Repository, modules: GitModules) -> None:
    if can_filter:
        repository.git("config", "uploadpack.allowFilter", "true")
    first = repository.commit({"module.yaml": "1"})
    for number in range(2, 5):
        repository.commit({"module.yaml": str(number)})
    assert modules.fetch(f"{SOURCE}@{first}").text == "1"
    fetched = modules.fetch(f"{SOURCE}@{first[:7]}")
    assert (fetched.text, fetched.commit) == ("1", first)
    absent = "f" * 7 if not first.startswith("f" * 7) else "e" * 7
    assert "no commit" in refusal(modules, f"{SOURCE}@{absent}")
    assert "write all 40 digits" in refusal(modules, f"{SOURCE}@{absent}")
    assert "git failed" in refusal(modules, f"{SOURCE}@{'f' * 40}")


def test_a_short_commit_is_one_of_a_branch_or_tag(repository: Repository, modules: GitModules) -> None:
    repository.commit({"module.yaml": TEXT})
    commit = repository.git("commit-tree", "HEAD^{tree}", "-m", "of no branch")
    assert "no commit" in refusal(modules, f"{SOURCE}@{commit[:10]}")


def test_what_is_not_there(repository: Repository, root: Path, modules: GitModules) -> None:
    commit = repository.commit({"folder/file": "x", "folder/module.yaml/file": "x", "file": "x"})
    assert refusal(modules, SOURCE) == f"there is no module.yaml in commit {commit[:12]}; is the source right?"
    assert "there is no nope/module.yaml" in refusal(modules, f"{SOURCE}/nope")
    assert "is a folder" in refusal(modules, f"{SOURCE}/folder")
    assert "file/module.yaml" in refusal(modules, f"{SOURCE}/file")
    assert refusal(modules, f"{SOURCE}/folder@v9") == (
        "the repository has no tag or branch v9; looked for refs/tags/folder/v9, refs/tags/v9, refs/heads/v9"
    )
    message = refusal(modules, "git.example/a/nope")
    assert message.startswith("git failed: ")
    assert str(root) not in message
    Repository(root / "git.example" / "a" / "empty")
    assert refusal(modules, "git.example/a/empty") == "the repository is empty: it has no HEAD"


def test_symbolic_links_stay_inside(repository: Repository, modules: GitModules, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    repository.commit({"real/module.yaml": TEXT})
    links = {
        "inside": "../real/module.yaml",
        "absolute": str(tmp_path / "secret"),
        "up": "../../secret",
        "nothing": "nothing",
        "itself": "module.yaml",
    }
    for folder, target in links.items():
        (repository.path / folder).mkdir()
        (repository.path / folder / "module.yaml").symlink_to(target)
    (repository.path / "whole").symlink_to("real")
    (repository.path / "away").symlink_to("/etc")
    repository.commit()
    assert modules.fetch(f"{SOURCE}/inside").text == TEXT
    assert modules.fetch(f"{SOURCE}/whole").text == TEXT
    for folder in ("absolute", "up", "away"):
        assert "leaves the repository" in refusal(modules, f"{SOURCE}/{folder}")
    assert "to nothing" in refusal(modules, f"{SOURCE}/nothing")
    assert "to itself" in refusal(modules, f"{SOURCE}/itself")


@pytest.mark.parametrize("can_filter", [False, True])
def test_a_large_file_is_refused(can_filter: bool, repository: Repository, modules: GitModules) -> None:
    if can_filter:
        repository.git("config", "uploadpack.allowFilter", "true")
    repository.commit({"module.yaml": os.urandom(1 << 20).hex(), "most/module.yaml": "x" * (128 << 10)})
    assert refusal(modules, SOURCE) == "module.yaml is larger than 128 KiB"
    if not can_filter:
        assert len(modules.fetch(f"{SOURCE}/most").text) == 128 << 10


def test_other_large_files_are_not_even_fetched(repository: Repository, root: Path, tmp_path: Path) -> None:
    repository.commit({"module.yaml": TEXT, "large": os.urandom(3 << 20)})
    modules = GitModules(tmp_path / "cache", file_root=root, most_pack_bytes=2 << 20)
    assert "more than 2 MiB at this commit" in refusal(modules, SOURCE)
    repository.git("config", "uploadpack.allowFilter", "true")
    assert modules.fetch(SOURCE).text == TEXT


def test_what_inflates_does_not_fill_the_memory(repository: Repository, modules: GitModules) -> None:
    """A file of zeros that is small in a pack."""
    repository.commit({"module.yaml": TEXT, "zeros": bytes(200 << 20)})
    started = time.monotonic()
    assert modules.fetch(SOURCE).text == TEXT
    assert time.monotonic() - started < 30


def test_old_commits_are_not_fetched(repository: Repository, root: Path, tmp_path: Path) -> None:
    repository.commit({"large": os.urandom(3 << 20)})
    (repository.path / "large").unlink()
    repository.commit({"module.yaml": TEXT})
    modules = GitModules(tmp_path / "cache", file_root=root, most_pack_bytes=2 << 20)
    assert modules.fetch(SOURCE).text == TEXT


def test_what_repositories_bring_does_nothing(repository: Repository, modules: GitModules, tmp_path: Path) -> None:
    """Hooks, filters, submodules and attributes: nothing is checked out, and nothing of them is read."""
    marker = tmp_path / "ran"
    hook = f"#!/bin/sh\ntouch {marker}\n"
    for name in ("post-checkout", "reference-transaction", "post-merge"):
        path = repository.path / ".git" / "hooks" / name
        path.write_text(hook)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    repository.commit(
        {
            ".gitattributes": "*.yaml filter=lfs\n* filter=run ident export-subst\n",
            ".gitmodules": '[submodule "s"]\n\tpath = s\n\turl = https://git.invalid/a/b\n\tfetchRecurseSubmodules = true\n',
            ".lfsconfig": "[lfs]\n\turl = https://git.invalid\n",
            "hooks/post-checkout": hook,
            "module.yaml": TEXT,
            "large/module.yaml": pointer,
        }
    )
    assert modules.fetch(SOURCE).text == TEXT
    assert modules.fetch(f"{SOURCE}/large").text == pointer
    assert not marker.exists()


def test_nothing_of_the_environment_reaches_git(
    repository: Repository, modules: GitModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    repository.commit({"module.yaml": TEXT})
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[core]\n\tfsmonitor = touch {marker}\n[url "/nonexistent"]\n\tinsteadOf = file://\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "url./nonexistent.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "file://")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert modules.fetch(SOURCE).text == TEXT
    assert not marker.exists()
    assert not (tmp_path / "trace").exists()


def test_a_ref_is_looked_up_once_a_minute_and_a_commit_once(
    repository: Repository, modules: GitModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit({"module.yaml": "1"})
    assert modules.fetch(SOURCE).commit == first
    second = repository.commit({"module.yaml": "2"})
    assert modules.fetch(SOURCE).commit == first
    monkeypatch.setattr(modules_file, "REF_SECONDS", 0)
    assert (modules.fetch(SOURCE).commit, modules.fetch(SOURCE).text) == (second, "2")
    shutil.rmtree(repository.path)
    assert modules.fetch(f"{SOURCE}@{first}").text == "1"
    assert "git failed" in refusal(modules, SOURCE)


def test_the_cache_is_private_and_bounded(repository: Repository, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "parent" / "cache"
    modules = GitModules(cache, file_root=root, most_entries=3)
    commits = [repository.commit({"module.yaml": str(number)}) for number in range(5)]
    for number, commit in enumerate(commits):
        modules.fetch(f"{SOURCE}@{commit}")
        for path in cache.iterdir():
            os.utime(path, (time.time() - 100 + number,) * 2)
    kept = list(cache.iterdir())
    assert len(kept) == 3
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert {path.read_text() for path in kept} == {"2", "3", "4"} or len({path.read_text() for path in kept}) == 3


def test_what_a_killed_fetch_left_is_removed(repository: Repository, modules: GitModules, tmp_path: Path) -> None:
    repository.commit({"module.yaml": TEXT})
    for name, age in (("fetch-old", 7200), ("fetch-new", 0)):
        (tmp_path / "cache" / name).mkdir(parents=True)
        os.utime(tmp_path / "cache" / name, (time.time() - age,) * 2)
    modules.fetch(SOURCE)
    assert sorted(path.name for path in (tmp_path / "cache").glob("fetch-*")) == ["fetch-new"]


def _slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git that takes its time for fetches, and leaves a child; the file that it makes when it begins."""
    real, begun = shutil.which("git"), tmp_path / "begun"
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor word; do if [ "$word" = fetch ]; then ps -o pgid= -p $$ >>{begun}; sleep 60; fi; done\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return begun


def _alive(begun: Path) -> list[str]:
    """The processes of the group in which the slow git has begun."""
    group = int(begun.read_text())
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row[2] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


def test_a_slow_server_is_given_up_with_all_processes(
    repository: Repository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"module.yaml": TEXT})
    begun = _slow(tmp_path, monkeypatch)
    modules = GitModules(tmp_path / "cache", file_root=root, fetch_seconds=1)
    started = time.monotonic()
    assert "too slow" in refusal(modules, SOURCE)
    assert time.monotonic() - started < 5
    assert _alive(begun) == []
    assert list((tmp_path / "cache").iterdir()) == []


def test_git_ends_also_when_who_started_it_was_killed(
    repository: Repository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"module.yaml": TEXT})
    begun = _slow(tmp_path, monkeypatch)
    code = (
        "import sys; from pathlib import Path; from deepsquare.grid.sbatch_api.modules import GitModules;"
        "GitModules(Path(sys.argv[1]), file_root=Path(sys.argv[2]), fetch_seconds=3).fetch(sys.argv[3])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cache"), str(root), SOURCE])
    while not begun.exists() or not begun.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert _alive(begun) != []
    until = time.monotonic() + 10
    while _alive(begun) and time.monotonic() < until:
        time.sleep(0.2)
    assert _alive(begun) == []


def test_fetches_at_a_time_are_few_and_others_wait_and_are_told(
    repository: Repository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = [repository.commit({"module.yaml": str(number)}) for number in range(6)]
    begun = _slow(tmp_path, monkeypatch)
    modules = GitModules(tmp_path / "cache", file_root=root, fetch_seconds=4, wait_seconds=0.5)
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(refusal, modules, f"{SOURCE}@{commit}") for commit in commits]
        messages = [future.result() for future in running]
    assert len(begun.read_text().split()) == modules_file.MOST_FETCHES
    assert sum("try again in a minute" in message for message in messages) == 2
    assert sum("too slow" in message for message in messages) == 4


def test_closing_ends_what_runs(
    repository: Repository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"module.yaml": TEXT})
    begun = _slow(tmp_path, monkeypatch)
    modules = GitModules(tmp_path / "cache", file_root=root)

    def close() -> None:
        while not begun.exists():
            time.sleep(0.05)
        modules.close()

    closing = threading.Thread(target=close)
    closing.start()
    assert "stopping" in refusal(modules, SOURCE)
    closing.join()


def test_a_missing_or_old_git_is_named(
    repository: Repository, modules: GitModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "apt-get install git" in refusal(modules, SOURCE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\necho git version 2.20.1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    assert "older than 2.37" in refusal(modules, SOURCE)


def test_many_threads_fetch_the_same(repository: Repository, root: Path, tmp_path: Path) -> None:
    commit = repository.commit({"module.yaml": TEXT})
    modules = GitModules(tmp_path / "cache", file_root=root, wait_seconds=30)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: modules.fetch(SOURCE), range(16)))
    assert {(fetched.text, fetched.commit) for fetched in found} == {(TEXT, commit)}


@pytest.mark.parametrize(
    "source",
    [
        *("", "git.example", "git.example/a", "git.example/a/b@", "git.example/a/b@-x", "git.example/a/b/../c"),
        *(
            "git.example/a/b@a..b",
            "https://git.example/a/b",
            "u:p@git.example/a/b",
            "git.example/a/-b",
            "git.example//a/b",
        ),
        *(
            "git.example/a/b@x y",
            "git.example/a/b@x^{}",
            "git.example:0/a/b",
            "git.example:99999/a/b",
            "git.example/a/b?c",
        ),
        *("git.example/a/b#c", "git.example/a/b\n", "git.example/a/.git", "-x.example/a/b", "git..example/a/b"),
    ],
)
def test_what_is_no_source(source: str, modules: GitModules) -> None:
    refusal(modules, source)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0x7f000001", "8.8.8.8", "git.example.0x1", "1"],
)
def test_addresses_are_no_hosts(host: str, modules: GitModules) -> None:
    assert "is an address" in refusal(modules, f"{host}/a/b")


def test_a_source_taken_apart() -> None:
    assert Source.parse("Git.Example:8443/a/b/c/d@v1/x") == Source("git.example", 8443, "a/b", "c/d", "v1/x")
    assert Source.parse("git.example/a/b") == Source("git.example", 443, "a/b", "", None)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.1.2.3", "169.254.169.254", "172.16.0.1"),
        *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:93.184.215.14", "::127.0.0.1", "2002:7f00:1::", "2002:5db8:d70e::1"),
        *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1"),
        *("", "localhost", "2130706433"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "140.82.121.4", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:10.0.0.1"]])
def test_a_name_with_one_private_address_is_refused(addresses: list[str], tmp_path: Path) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, **_: object) -> list:
        asked.append((host, port))
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    modules = GitModules(tmp_path, getaddrinfo=getaddrinfo)
    assert refusal(modules, "git.example/a/b") == (
        "git.example has no address, or one that is not public; modules come from public servers only"
    )
    assert asked == [("git.example", 443)]


def test_a_name_without_an_address_is_told_like_one_with_a_private_one(tmp_path: Path) -> None:
    def getaddrinfo(*_: object, **__: object) -> list:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    modules = GitModules(tmp_path, getaddrinfo=getaddrinfo)
    assert refusal(modules, "git.example/a/b") == (
        "git.example has no address, or one that is not public; modules come from public servers only"
    )


def test_a_lookup_that_takes_too_long_is_given_up() -> None:
    finder = Finder(lambda *_, **__: time.sleep(2) or [])
    with pytest.raises(ModuleError, match="could not be found in time"):
        finder.find("git.example", 443, "/a/b", time.monotonic() + 0.2)
    finder.close()


def test_reasons_are_one_clean_line() -> None:
    assert one_line("remote: \x1b[31mhello\nfatal: unable to access 'https://user:pw@h/x': bad\x1b[0m\n") == (
        "unable to access 'the repository bad?[0m"
    )
    assert one_line("") == "no reason is given"
    assert len(one_line("fatal: " + "x" * 1000)) == 200


MODULE = """\
name: greet
minimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}
inputs: [{key: WHO, description: whom}]
steps:
  - run: {command: echo hello}
  {{- .Step.Use.Steps | toYaml | nindent 2 }}
"""


class TestTheApi:
    """Workflows that use modules, as clients submit them."""

    @pytest.fixture
    async def url(self, chain, modules: GitModules, tmp_path: Path):
        service = SbatchApi(chain=chain, state_dir=tmp_path / "api", logger_endpoint="l:1", modules=modules)
        async with service:
            yield f"http://127.0.0.1:{service.port}/graphql"

    def job(self, workflow: dict, **fields: object) -> dict:
        return workflow | {"steps": [{"use": {"source": f"{SOURCE}@v1"} | fields}]}

    async def test_a_module_is_fetched(self, url, workflow, customer, repository: Repository, modules: GitModules):
        repository.commit({"module.yaml": MODULE})
        repository.git("tag", "v1")
        assert await submit_workflow(url, self.job(workflow, steps=[{"name": "child"}]), customer)
        shutil.rmtree(repository.path)
        # It is known by now.
        assert modules.fetch(f"{SOURCE}@v1").text == MODULE

    async def test_what_is_wrong_is_told_with_its_place(self, url, workflow, customer, repository: Repository):
        repository.commit({"module.yaml": MODULE})
        with pytest.raises(WorkflowRejectedError) as caught:
            await submit_workflow(url, self.job(workflow), customer)
        (problem,) = caught.value.problems
        assert problem.startswith("steps[0].use.source: ")
        assert "has no tag or branch v1" in problem
        repository.git("tag", "v1")
        with pytest.raises(WorkflowRejectedError) as caught:
            await submit_workflow(url, self.job(workflow, args=[{"key": "WHOM", "value": "x"}]), customer)
        (problem,) = caught.value.problems
        assert problem.startswith("steps[0].use.args[0].key: ")
        assert "did you mean WHO?" in problem

    async def test_modules_of_a_module_are_looked_at(self, url, workflow, repository: Repository):
        repository.commit({"module.yaml": MODULE})
        module = {"name": "a", "description": "b", "minimumResources": workflow["resources"]}
        query = "mutation($module: Module!) { validate(module: $module) }"
        async with httpx.AsyncClient() as http:
            for source, answer in ((SOURCE, "valid"), (f"{SOURCE}@v9", "has no tag or branch v9")):
                variables = {"module": module | {"steps": [{"use": {"source": source}}]}}
                response = await http.post(url, json={"query": query, "variables": variables})
                assert answer in response.json()["data"]["validate"]


def test_the_command_compiles_with_modules_and_validates_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    file = tmp_path / "job.yaml"
    file.write_text(
        "resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\nsteps: [{use: {source: 127.0.0.1/a/b}}]\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from deepsquare.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "workflow", *arguments, str(file)], capture_output=True, text=True, check=False
        )

    assert run("validate").stdout == f"{file} is valid\n"
    result = run("compile")
    assert result.returncode == 1
    assert f"{file}:2:16: steps[0].use.source: module 127.0.0.1/a/b: 127.0.0.1 is an address" in result.stderr
    assert "Traceback" not in result.stderr
