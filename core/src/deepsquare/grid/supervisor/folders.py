"""The folders that jobs use, on the file system that the cluster's nodes share."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import PurePosixPath

from deepsquare.errors import ConfigError
from deepsquare.grid.supervisor.hosts.base import EXIT_TIMED_OUT, Account, Answer, Host

NAMES = ("shared", "persistent", "disk", "world-tmp", "spool", "programs")
"""What is made below the folder that jobs get."""

_MARKER_DAYS = 366

# The names of what is removed become others, so that the job's end waits for no big folder: a process in a session of its own,
# which nobody ends with this one, removes what has such names, and with it what an earlier one left when its machine was
# switched off. What begins with a dot, as folders with keys do, comes first.
_CLEAR = r"""
cd "$1" || exit
shift
code=0
for name; do
    # The name may be a link, which is not followed.
    [ -e "$name" ] || [ -L "$name" ] || continue
    mv -T "$name" ".removed-$name" || code=1
done
# A second time for what a step made read-only; links are removed, not followed.
setsid sh -c '
    for folder in .removed-.* .removed-*; do
        rm -rf "$folder" || { chmod -R u+rwX "$folder"; rm -rf "$folder"; }
    done
' </dev/null >/dev/null 2>&1 &
exit "$code"
"""

_log = logging.getLogger(__name__)


def of_account(uid: int) -> list[str]:
    """What is one account's alone, below the folder that jobs get."""
    return [f"shared/{uid}", f"persistent/user-{uid}", f"disk/tmp/user-{uid}"]


class JobFolders:
    """Scratch, caches and output below one folder.

    | folder | whose |
    |---|---|
    | `shared/UID`, `persistent/user-UID`, `disk/tmp/user-UID` | one account's, closed to the others |
    | `world-tmp`, `disk/world-tmp` | everybody's |
    | `programs` | the supervisor's; everybody may run them |
    | `spool` | the supervisor's; jobs reach their own files in it |

    What is one account's is made by the supervisor, not by jobs: a folder that everybody may write in could be occupied by others.
    """

    def __init__(self, host: Host, root: PurePosixPath) -> None:
        self._host, self._root = host, root
        self._made: set[int] = set()

    @property
    def spool(self) -> PurePosixPath:
        """Where the output of jobs is."""
        return self._root / "spool"

    @property
    def programs(self) -> PurePosixPath:
        """Where programs for jobs are."""
        return self._root / "programs"

    def variables(self) -> dict[str, str]:
        """The roots among the late-bound variables of scripts (`deepsquare.compiler`)."""
        return {
            "DEEPSQUARE_SHARED_ROOT": str(self._root / "shared"),
            "DEEPSQUARE_PERSISTENT_ROOT": str(self._root / "persistent"),
            "DEEPSQUARE_WORLD_TMP_ROOT": str(self._root / "world-tmp"),
            "DEEPSQUARE_DISK_ROOT": str(self._root / "disk"),
        }

    async def prepare(self) -> None:
        """Make what all accounts share.

        Raises:
            ConfigError: it can't be made.
            ConnectionFailedError: the host can't be reached.
        """
        root = self._root
        # One that is there is the operator's: it stays as it is. One whose parent is missing is a mistake, or a disk that is away.
        answer = await self._host.run("sh", "-c", 'test -d "$1" || mkdir -m 0711 "$1"', "sh", str(root))
        if answer.code != 0:
            raise self._failure(answer)
        # Whoever passes through can't list: names of other customers' jobs are none of their business.
        passages = [*(root / name for name in ("shared", "persistent", "disk", "disk/tmp", "spool"))]
        await self._install("0711", passages)
        await self._install("1777", [root / "world-tmp", root / "disk/world-tmp"])

    async def admit(self, account: Account) -> None:
        """Make what is an account's own, once.

        Raises:
            ConfigError: it can't be made.
            ConnectionFailedError: the host can't be reached.
        """
        if account.uid in self._made:
            return
        await self._install("0700", [self._root / name for name in of_account(account.uid)], account)
        own = str(self._root / "shared" / str(account.uid))
        if (await self._host.run("test", "-w", own, account=account)).code != 0:
            raise ConfigError(
                f"the account {account.name} can't reach its folder {own} on {self._host.name}: a folder above it is closed to "
                "others. Open it (chmod o+x), or choose another place with --shared-folder"
            )
        # What tells a second start of a job from the first; no job may run for so long.
        started = str(self._root / "shared" / str(account.uid) / "started")
        old = ["-mindepth", "1", "-maxdepth", "1", "-type", "d", "-mtime", f"+{_MARKER_DAYS}", "-delete"]
        # None are there before the first job, and those that stay do no harm: the answer doesn't matter.
        await self._host.run("find", started, *old, account=account)
        self._made.add(account.uid)

    async def clear(self, uid: int, name: str, scheduler_id: str) -> None:
        """Begin to remove what is left of a job's scratch: its script does that itself, unless it was killed.

        Raises:
            ConnectionFailedError: the host can't be reached.
        """
        own = self._root / "shared" / str(uid)
        left = [f"{prefix}{name}.{scheduler_id}" for prefix in (".", "")]
        answer = await self._host.run("sh", "-c", _CLEAR, "sh", str(own), *left)
        if answer.code != 0:
            why = "it took too long" if answer.code == EXIT_TIMED_OUT else answer.errors.strip()
            _log.warning("the scratch of job %s stays in %s: %s", name, own, why)

    async def _install(self, mode: str, folders: Iterable[PurePosixPath], owner: Account | None = None) -> None:
        uid, gid = (owner.uid, owner.gid) if owner is not None else (0, 0)
        owned = [f"--owner={uid}", f"--group={gid}"] if await self._host.is_root() else []
        names = [str(folder) for folder in folders]
        answer = await self._host.run("install", "-d", f"--mode={mode}", *owned, *names)
        if answer.code != 0:
            raise self._failure(answer)

    def _failure(self, answer: Answer) -> ConfigError:
        return ConfigError(
            f"the folders of jobs can't be made on {self._host.name}: {answer.errors.strip()}. Choose another place with "
            "--shared-folder"
        )
