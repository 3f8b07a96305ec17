"""What Enroot's command line does; by the Enroot of this machine, or else by the test double."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import TestAccount, new_account
from tests.apptainer import IMAGES, grid_options
from tests.enroot import IS_DOUBLE, KIND, enroot_program

pytestmark = pytest.mark.parametrize("enroot", [KIND], indirect=True)
of_the_double = pytest.mark.skipif(not IS_DOUBLE, reason="the real one prints its usage instead")


@pytest.fixture(scope="module")
def account() -> Iterator[TestAccount]:
    grid_options("busybox")
    with new_account() as made:
        yield made


class Enroot:
    """The program, as an account runs it."""

    def __init__(self, program: Path, account: TestAccount) -> None:
        self.program, self.account = program, account
        self.env = {"ENROOT_RUNTIME_PATH": str(account.home / "run"), "SECRET_OF_THE_HOST": "seen"}

    def __call__(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return self.account.run(self.program, *arguments, env=self.env | env, stdin=subprocess.DEVNULL)

    def output(self, *arguments: str | Path, **env: str) -> str:
        done = self(*arguments, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, image: Path = IMAGES / "busybox.sqsh") -> str:
        name = f"box-{uuid.uuid4().hex[:8]}"
        self.output("create", "--name", name, "--", image)
        return name

    def root(self, name: str) -> Path:
        return self.account.home / ".local/share/enroot" / name

    def conf(self, text: str) -> Path:
        path = self.account.home / f"conf-{uuid.uuid4().hex[:8]}"
        path.write_text(text)
        return path


@pytest.fixture
def enroot(account: TestAccount) -> Enroot:
    return Enroot(enroot_program()[0], account)


@pytest.fixture
def box(enroot: Enroot) -> str:
    return enroot.create()


# -------------------------------------------------------------------- roots


def test_its_version_says_what_it_is(enroot: Enroot) -> None:
    version = enroot.output("version").strip()
    assert (version == "0.0.0-double") == IS_DOUBLE


def test_roots_are_made_listed_and_removed(enroot: Enroot) -> None:
    name = enroot.create()
    assert name in enroot.output("list").splitlines()
    again = enroot("create", "-n", name, IMAGES / "busybox.sqsh")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    enroot.output("remove", "--force", "--", name)
    assert name not in enroot.output("list").splitlines()
    assert enroot("remove", "-f", name).returncode == 1


def test_a_root_is_not_removed_without_a_yes(enroot: Enroot, box: str) -> None:
    enroot("remove", box)
    assert box in enroot.output("list").splitlines()


def test_what_is_no_image_is_refused(enroot: Enroot) -> None:
    assert enroot("create", "-n", "other", "/etc/passwd").returncode == 1
    assert enroot("create", "-n", "other", "/no/such.sqsh").returncode == 1
    assert enroot("create", "-n", "../other", IMAGES / "busybox.sqsh").returncode == 1


# -------------------------------------------------------------------- commands


def test_a_command_runs_in_the_root_as_the_account(enroot: Enroot, box: str, account: TestAccount) -> None:
    told = enroot.output(
        "start",
        box,
        "sh",
        "-c",
        "id -un; id -u; ls /etc/debian_version /usr 2>/dev/null; busybox | head -n 1 | cut -c 1-7",
    )
    uid = subprocess.run(["id", "-u", account.name], capture_output=True, text=True, check=True).stdout.strip()
    assert told.splitlines() == [account.name, uid, "BusyBox"]


def test_words_stay_words(enroot: Enroot, box: str) -> None:
    words = ["a b", "", "*", "$HOME", "'", "-x", "new\nline"]
    assert enroot.output("start", "--", box, "printf", "<%s>", *words) == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(enroot: Enroot, box: str, code: int) -> None:
    assert enroot("start", box, "sh", "-c", f"exit {code}").returncode == code


def test_an_unknown_command_is_127(enroot: Enroot, box: str) -> None:
    assert enroot("start", box, "no-such-command").returncode == 127


def test_the_command_takes_the_place_of_enroot(enroot: Enroot, box: str, account: TestAccount) -> None:
    process = account.start(enroot.program, "start", box, "sh", "-c", "echo $$; exec sleep 60", env=enroot.env)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_a_signal_reaches_the_command(enroot: Enroot, box: str, account: TestAccount) -> None:
    waits = "trap 'echo got it; exit 7' USR1; echo up; while :; do sleep 0.05; done"
    process = account.start(enroot.program, "start", box, "sh", "-c", waits, env=enroot.env)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGUSR1)
    assert (process.wait(), process.stdout.read()) == (7, "got it\n")


def test_no_file_stays_open(enroot: Enroot, box: str, account: TestAccount) -> None:
    reading, writing = os.pipe()
    shown = account.start(
        enroot.program,
        "start",
        box,
        "sh",
        "-c",
        f"echo /proc/$$/fd/*; : >&{writing}",
        env=enroot.env,
        pass_fds=[writing],
    )
    os.close(writing)
    told, _ = shown.communicate()
    os.close(reading)
    # The shell holds what it reads its directory with.
    assert {word.rsplit("/", 1)[1] for word in told.split()} <= {"0", "1", "2", "3"}
    assert shown.returncode != 0


def test_a_root_that_does_not_exist(enroot: Enroot) -> None:
    missing = enroot("start", "no-such-root", "true")
    assert (missing.returncode, "No such file" in missing.stderr) == (1, True)


# -------------------------------------------------------------------- rights


def test_the_root_is_read_only_unless_asked_otherwise(enroot: Enroot, box: str) -> None:
    assert enroot("start", box, "touch", "/new").returncode == 1
    enroot.output("start", "--rw", box, "touch", "/new")
    assert (enroot.root(box) / "new").exists()
    enroot.output("start", box, "sh", "-c", "ls /new", ENROOT_ROOTFS_WRITABLE="yes")
    assert enroot("start", box, "touch", "/newer", ENROOT_ROOTFS_WRITABLE="no").returncode == 1


def test_root_by_request(enroot: Enroot, box: str) -> None:
    assert enroot.output("start", "--root", box, "id", "-u") == "0\n"
    assert enroot.output("start", box, "id", "-u", ENROOT_REMAP_ROOT="y") == "0\n"


def test_no_rights_are_gained(enroot: Enroot, box: str) -> None:
    seen = enroot.output("start", box, "grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status")
    assert seen.split() == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


def test_nothing_of_the_host_is_seen(enroot: Enroot, box: str) -> None:
    # But its home, which is made for it.
    seen = enroot.output("start", box, "sh", "-c", "ls -A /work /var/cache /boot /usr 2>/dev/null; ls -A /tmp /run")
    assert [line for line in seen.split() if line != enroot.account.home.name] == ["/run:", "/tmp:"]


# -------------------------------------------------------------------- variables


def image_with(enroot: Enroot, box: str, **files: str) -> None:
    """Change files of the root, named as etc_rc is named."""
    for name, text in files.items():
        (enroot.root(box) / name.replace("_", "/", 1)).write_text(text)


def test_the_environment_is_the_files_and_nothing_else(enroot: Enroot, box: str) -> None:
    image_with(enroot, box, etc_environment="OF_IMAGE=image\nBOTH=image\nFROM_HOST=${SECRET_OF_THE_HOST}\n")
    conf = enroot.conf(
        """environ() { cat <<'END'
BOTH=conf
  SPACED=a  b
QUOTED="a b"
SINGLE='x'
ODD=\\$(id) "q
# no
bad-name=1
ENROOT_X=1
GREETING=ü
END
}
"""
    )
    told = enroot.output(
        "start", "--conf", conf, "-e", "SECRET_OF_THE_HOST", "-e", "CLI=a b=c", box, "env", ENROOT_LOGIN_SHELL="no"
    )
    seen = dict(line.split("=", 1) for line in told.splitlines())
    for added in ("SHLVL", "PWD", "TERM", "OLDPWD", "_"):
        seen.pop(added, None)
    path = seen.pop("PATH", "")
    assert path != os.environ["PATH"]
    assert seen == {
        "OF_IMAGE": "image",
        "BOTH": "conf",
        "FROM_HOST": "seen",
        "SPACED": "a  b",
        "QUOTED": "a b",
        "SINGLE": "x",
        "ODD": '\\$(id) "q',
        "GREETING": "ü",
        "SECRET_OF_THE_HOST": "seen",
        "CLI": "a b=c",
    }


def test_a_login_shell_brings_what_an_account_has(enroot: Enroot, box: str, account: TestAccount) -> None:
    told = enroot.output("start", box, "sh", "-c", 'echo "$USER $LOGNAME $HOME"; pwd; ls -A')
    assert told.splitlines() == [f"{account.name} {account.name} {account.home}", str(account.home)]
    assert enroot.output("start", box, "sh", "-c", 'echo "${HOME-none}"; pwd', ENROOT_LOGIN_SHELL="no") == "none\n/\n"


def test_a_home_of_the_jobs_own(enroot: Enroot, box: str) -> None:
    conf = enroot.conf("environ() { echo HOME=/tmp; }\n")
    assert enroot.output("start", "-c", conf, box, "sh", "-c", 'echo "$HOME"; pwd') == "/tmp\n/tmp\n"


def test_the_home_of_the_host_by_request(enroot: Enroot, box: str, account: TestAccount) -> None:
    (account.home / "mine").write_text("kept\n")
    assert enroot.output("start", box, "sh", "-c", 'cat "$HOME/mine"', ENROOT_MOUNT_HOME="y") == "kept\n"
    assert enroot.output("start", "--root", box, "cat", "/root/mine", ENROOT_MOUNT_HOME="y") == "kept\n"
    assert enroot("start", box, "sh", "-c", 'cat "$HOME/mine"').returncode == 1


# -------------------------------------------------------------------- configuration


def test_directives_of_a_configuration(enroot: Enroot, box: str) -> None:
    conf = enroot.conf("#ENROOT_ROOTFS_WRITABLE=yes\n#ENROOT_REMAP_ROOT=yes\n# ENROOT_LOGIN_SHELL=no\n")
    assert enroot.output("start", "--conf", conf, box, "sh", "-c", "id -u; touch /new && pwd") == "0\n/\n"


def test_mounts_of_a_configuration(enroot: Enroot, box: str, account: TestAccount) -> None:
    folder, file = account.home / "a folder\\of\tmine", account.home / "file"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "inside").write_text("in the folder\n")
    file.write_text("the file\n")
    file.chmod(0o666)
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    conf = enroot.conf(
        f"""mounts() {{
    cat <<'END'
# a comment
{escaped} /data/of\\040it none x-create=dir,bind,rw,nosuid,nodev
{file} /data/file none x-create=auto,bind,ro,nosuid,nodev,noexec
{account.home} /again/home none x-create=auto,rbind,ro
tmpfs /scratch tmpfs x-create=dir,rw,nosuid,nodev
/no/such/place /nowhere none x-create=dir,bind,nofail,silent
END
}}
"""
    )
    command = (
        "cat '/data/of it/inside' /data/file; echo new >'/data/of it/new'; touch /scratch/x; "
        "(echo x >>/data/file) 2>/dev/null || cat /again/home/file"
    )
    assert enroot.output("start", "-c", conf, box, "sh", "-c", command) == "in the folder\nthe file\nthe file\n"
    assert (folder / "new").read_text() == "new\n"


def test_a_mount_of_the_command_line(enroot: Enroot, box: str, account: TestAccount) -> None:
    (account.home / "shown").mkdir()
    (account.home / "shown" / "file").write_text("here\n")
    line = f"{account.home}/shown:/mnt/shown:none:x-create=dir,bind,ro"
    assert enroot.output("start", "--mount", line, box, "cat", "/mnt/shown/file") == "here\n"
    assert enroot("start", "-m", "/a b:/c", box, "true").returncode == 1


def test_a_mount_that_can_not_be_made_fails(enroot: Enroot, box: str) -> None:
    conf = enroot.conf('mounts() { echo "/no/such/place /nowhere none x-create=dir,bind"; }\n')
    done = enroot("start", "-c", conf, box, "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")


def test_links_of_the_image_lead_nowhere_outside(enroot: Enroot, box: str, account: TestAccount) -> None:
    (account.home / "target").mkdir(exist_ok=True)
    (enroot.root(box) / "trap").symlink_to(account.home / "target")
    conf = enroot.conf(f'mounts() {{ echo "{account.home} /trap/deep none x-create=dir,bind,ro"; }}\n')
    enroot.output("start", "-c", conf, box, "ls", f"{account.home}/target/deep")
    assert not (account.home / "target" / "deep").exists()


def test_hooks_come_after_variables_and_before_mounts(enroot: Enroot, box: str) -> None:
    conf = enroot.conf(
        """environ() { echo FIRST=1; }
hooks() {
    echo "SEEN=$(grep -c FIRST "$ENROOT_ENVIRON")" >>"$ENROOT_ENVIRON"
    mkdir "$ENROOT_ROOTFS/made" && echo hook >"$ENROOT_ROOTFS/made/file"
    echo "$ENROOT_ROOTFS/made /of-a-hook none x-create=dir,bind,ro" >>"$ENROOT_MOUNTS"
    [ ! -e "$ENROOT_ROOTFS/of-mounts" ] && [ -e "$ENROOT_ROOTFS/proc/self" ]
}
mounts() { echo "$ENROOT_ROOTFS/of-a-hook /of-mounts none x-create=dir,bind,ro"; }
"""
    )
    assert enroot.output("start", "-c", conf, box, "sh", "-c", 'echo "$SEEN"; cat /of-mounts/file') == "1\nhook\n"


@pytest.mark.parametrize("part", ["environ", "mounts", "hooks"])
def test_a_configuration_that_fails_ends_it(enroot: Enroot, box: str, part: str) -> None:
    conf = enroot.conf(f'{part}() {{ echo "$no_such_variable"; }}\n')
    done = enroot("start", "-c", conf, box, "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert enroot("start", "-c", enroot.conf("environ() {\n"), box, "true").returncode == 1


# -------------------------------------------------------------------- the images' scripts


def test_the_command_script_of_an_image(enroot: Enroot, box: str) -> None:
    image_with(enroot, box, etc_rc='cd /bin\necho "rc $#: $*"\nexec "$@"\n')
    assert enroot.output("start", box, "pwd") == "rc 1: pwd\n/bin\n"


def test_one_word_with_spaces_is_a_line_for_the_shell(enroot: Enroot, box: str) -> None:
    assert enroot.output("start", box, "echo $((1 + 1)); echo $1", "more") == "2\nmore\n"


def test_volumes_of_an_image(enroot: Enroot, box: str) -> None:
    image_with(enroot, box, etc_fstab="${ENROOT_ROOTFS}/srv /srv none x-create=dir,bind,rw,nosuid,nodev\n")
    (enroot.root(box) / "srv").mkdir(mode=0o777)
    (enroot.root(box) / "srv").chmod(0o777)
    enroot.output("start", box, "touch", "/srv/new")
    assert (enroot.root(box) / "srv" / "new").exists()


# -------------------------------------------------------------------- what it doesn't know


@of_the_double
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("exec", "1", "true"),
        ("batch", "conf"),
        ("start", "--rc", "x", "box"),
        ("start", "-z", "box"),
        ("import", "-a", "amd64", "docker://busybox"),
        ("import", "dockerd://busybox"),
        ("create", "--force", "x"),
        ("list", "--fancy"),
        ("remove", "-x", "box"),
    ],
    ids=" ".join,
)
def test_what_it_does_not_know_is_refused(enroot: Enroot, arguments: tuple[str, ...]) -> None:
    done = enroot(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("[ERROR]")
