"""The result channel: what a job writes to `$DEEPSQUARE_RESULT` travels to the customer among the lines of its log.

It needs no storage, and nothing of the grid: `with_result` changes the workflow before it is submitted, so that it works with any
compiler of the language, and `ResultReader` finds the result in the lines that the grid logger gives. The lines of the channel,
each at most 8 KiB long, begin with a marker and a tag that nobody can guess, and go on with one of

| text | meaning |
|---|---|
| `NUMBER BASE64` | a piece of the file; the first has number 1, and each but the last 6,000 bytes |
| `end COUNT SIZE SHA256` | the file is complete: how many pieces, how many bytes, and their hash |
| `none` | the job has written no file |
| `large SIZE` | the file has more than 1 MiB, and is not sent |
| `error irregular`, `error unreadable` | it is no file, but a folder, a pipe or the like; or it can't be read |

The first of them follows a newline, in case the output before it ended without one: otherwise that is an empty line of the log,
which belongs to nobody.

The tag is only in the step that sends the file, after all others. No command is given it, and also what prints that step's text
prints no line of the channel: a result is never an accident.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal

from deepsquare.errors import DeepSquareError
from deepsquare.workflow.loading import from_dict
from deepsquare.workflow.models import Workflow
from deepsquare.workflow.problems import Location, Problem, WorkflowError, path_text

RESULT_VARIABLE = "DEEPSQUARE_RESULT"
"""The variable that has the path of the file."""
RESULT_BYTES = 1 << 20
"""The largest result."""

_MARKER = "@deepsquare-result"
_FILE = ".deepsquare-result"
_PIECE_BYTES = 6000
_PIECE_CHARACTERS = _PIECE_BYTES // 3 * 4
_MOST_PIECES = -(-RESULT_BYTES // _PIECE_BYTES)

# Where containers see $STORAGE_PATH. Not as a line of the command: an image's entry point is no shell.
_INSIDE = {"key": RESULT_VARIABLE, "value": f"/deepsquare/{_FILE}"}
# For bash, sh and ash. Not as a variable of the step: values are literal, and the path is known on the node only.
_EXPORT = f'export {RESULT_VARIABLE}="$STORAGE_PATH/{_FILE}"\n'

# The file is read once, into memory: somebody may write to it still, and the disk may be full.
_PUBLISH = f"""\
tag=@TAG@
LC_ALL=C
set -o pipefail
# It may be the name of a customer's variable, and is too long to be exported.
unset -v data
send() {{ printf "{_MARKER} %s %s\\n" "$tag" "$1"; }}
publish() {{
    local size sum number=0
    if [ ! -e "${RESULT_VARIABLE}" ] && [ ! -L "${RESULT_VARIABLE}" ]; then send none; return; fi
    if [ ! -f "${RESULT_VARIABLE}" ]; then send "error irregular"; return; fi
    if ! data=$(head -c {RESULT_BYTES + 1} <"${RESULT_VARIABLE}" | base64 | tr -d "\\n"); then
        send "error unreadable"
        return
    fi
    size=$(printf "%s" "$data" | base64 -d | wc -c)
    sum=$(printf "%s" "$data" | base64 -d | sha256sum)
    if [ "$size" -gt {RESULT_BYTES} ]; then send "large $(($(wc -c <"${RESULT_VARIABLE}")))"; return; fi
    while [ "$((number * {_PIECE_CHARACTERS}))" -lt "${{#data}}" ]; do
        send "$((number + 1)) ${{data:$((number * {_PIECE_CHARACTERS})):{_PIECE_CHARACTERS}}}"
        number=$((number + 1))
    done
    send "end $number $((size)) ${{sum%% *}}"
}}
# The last line of the steps may have no end.
printf "\\n"
publish 2>/dev/null
exit 0
"""

_TAG = re.compile(r"[0-9a-f]{32}")
_PIECE = re.compile(rb"([1-9][0-9]{0,5}) ([A-Za-z0-9+/]{1,%d}={0,2})" % _PIECE_CHARACTERS)
_END = re.compile(rb"end (0|[1-9][0-9]{0,5}) (0|[1-9][0-9]{0,7}) ([0-9a-f]{64})")
_OTHER_CLOSING = re.compile(rb"none|large [1-9][0-9]{0,19}|error (?:irregular|unreadable)")


def new_tag() -> str:
    """A tag for the result of one job: 32 hex digits that nobody can guess."""
    # Imports sockets and more, which few programs need.
    from secrets import token_hex

    return token_hex(16)


def with_result(workflow: Workflow, tag: str) -> Workflow:
    """The workflow that does the same, and then sends what its commands wrote to `$DEEPSQUARE_RESULT`.

    It sends it also after a failure, a cancellation or a time-out, as far as there is time left. Whether it can be sent changes
    nothing in how the job ends. All commands have the variable but those of modules (`use`), which are fetched only when the
    grid compiles the workflow; steps that a module is given have it.

    Args:
        workflow: what to run.
        tag: a `new_tag` of this submission's own, by which a `ResultReader` knows the result.

    Raises:
        WorkflowError: it sets DEEPSQUARE_RESULT itself, throws its log away, sends a result already, or a command or the nesting
            of its steps has grown over the limits by what was added.
        ValueError: that is no tag.
    """
    _check_tag(tag)
    if problems := [Problem(path_text(place), text, "result") for place, text in _obstacles(workflow)]:
        raise WorkflowError(problems)
    data = workflow.to_dict()
    for place, _ in workflow.located_runs():
        run = _at(data, place)
        if run.get("container") is None:
            run["command"] = _EXPORT + run["command"]
        else:
            run["env"] = [*run.get("env", ()), _INSIDE]
    # Before the steps move to other places: those that errors name should be the user's.
    from_dict(data)
    data["enableLogging"] = True
    data["steps"] = [{"steps": data["steps"], "finally": [_publish_step(tag)]}]
    return from_dict(data)


def _obstacles(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    for place, run in workflow.located_runs():
        if run.command.startswith(_EXPORT):
            yield (*place, "command"), "is of a workflow that sends its result already: do that once"
            # Whatever else there is follows from it.
            return
    own = f"{RESULT_VARIABLE} can't be set: it is where the job's result is written; choose another name"
    if workflow.enable_logging is False:
        yield ("enableLogging",), "must not be false: the result travels with the log"
    variables = [(("env",), workflow.env), *(((*place, "env"), run.env) for place, run in workflow.located_runs())]
    for place, env in variables:
        for number, variable in enumerate(env):
            if variable.key == RESULT_VARIABLE:
                yield (*place, number, "key"), own


def _at(data: Any, place: Location) -> Any:
    for part in place:
        data = data[part]
    return data


def _publish_step(tag: str) -> dict[str, Any]:
    alone = {"shell": "/bin/bash", "resources": {"tasks": 1, "cpusPerTask": 1}}
    return {
        "name": "send the result",
        "run": {"command": _EXPORT + _PUBLISH.replace("@TAG@", tag), **alone},
        # It ends with 0, unless it is killed, for example for want of memory. That is no failure of the job either.
        "catch": [{"name": "go on without the result", "run": {"command": "true", **alone}}],
    }


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise ValueError("a tag has 32 hex digits: make it by new_tag()")


class ResultError(DeepSquareError):
    """A job's result is not to be had; `kind` says why.

    - `incomplete`: the log has no result, or only a part of it.
    - `large`: the job wrote more than 1 MiB; `size` has how many bytes.
    - `unreadable`: what the job wrote is no file that can be read.
    - `damaged`: what came is not what was sent.
    """

    def __init__(
        self, kind: Literal["incomplete", "large", "unreadable", "damaged"], reason: str, size: int | None = None
    ) -> None:
        self.kind, self.reason, self.size = kind, reason, size
        super().__init__(f"the job's result can't be had: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.reason, self.size)


class ResultReader:
    """Finds a job's result among the lines of its log.

    Lines may come twice, or in another order, as those of a log that is read again from an earlier place: what says the same is
    taken once. It never keeps more than the largest result, whatever comes.

    The result is untrusted: it passed through the provider's hands, who saw the tag too and could have sent anything. The hash
    finds accidents only. Never unpickle it.
    """

    def __init__(self, tag: str) -> None:
        """`tag` is the one that `with_result` was given.

        Raises:
            ValueError: that is no tag.
        """
        _check_tag(tag)
        self._prefix = f"{_MARKER} {tag} ".encode()
        self._pieces: dict[int, bytes] = {}
        self._closing: bytes | None = None
        self._damage: str | None = None

    def feed(self, line: str | bytes) -> bool:
        """Take a line of the log; True when it is one of the channel's, which is nothing for people to read."""
        data = line.encode(errors="replace") if isinstance(line, str) else line
        if not data.startswith(self._prefix):
            return False
        if self._damage is None:
            self._damage = self._take(data[len(self._prefix) :].rstrip(b"\r\n"))
            if self._damage is not None:
                self._pieces.clear()
        return True

    def _take(self, text: bytes) -> str | None:
        """Note what a line says; what is wrong with it, if anything is."""
        if _END.fullmatch(text) or _OTHER_CLOSING.fullmatch(text):
            if self._closing not in (None, text):
                return "it was sent twice, with different ends"
            self._closing = text
            return None
        match = _PIECE.fullmatch(text)
        if match is None or int(match[1]) > _MOST_PIECES:
            return "one of its lines is not as it was sent"
        try:
            piece = binascii.a2b_base64(match[2], strict_mode=True)
        except binascii.Error:
            return "one of its lines is no base64"
        if self._pieces.setdefault(int(match[1]), piece) != piece:
            return f"piece {int(match[1])} was sent twice, and differs"
        return None

    @property
    def result(self) -> bytes | None:
        """What the job wrote, once its log is complete; None when it wrote nothing.

        Raises:
            ResultError: it is incomplete, too large, damaged or no file.
        """
        if self._damage is not None:
            raise _damaged(self._damage)
        if self._closing is None:
            raise ResultError(
                "incomplete",
                "the job ended before it had sent it, as one does that is killed. Its log may say why; run it again",
            )
        end = _END.fullmatch(self._closing)
        if end is not None:
            return self._whole(int(end[1]), int(end[2]), end[3].decode())
        if self._pieces:
            raise _damaged("pieces of it came, although there is said to be none")
        kind, *value = self._closing.decode().split()
        if kind == "large":
            raise ResultError(
                "large",
                f"it has {value[0]} bytes, and at most {RESULT_BYTES} (1 MiB) travel with the log. Let the job write it to "
                "$DEEPSQUARE_OUTPUT, and return where it is",
                int(value[0]),
            )
        if kind == "error":
            what = "can't be read" if value[0] == "unreadable" else "is no file, but a folder, a pipe or the like"
            raise ResultError(
                "unreadable", f"what the job made of ${RESULT_VARIABLE} {what}. Let it write a file there"
            )
        return None

    def _whole(self, count: int, size: int, digest: str) -> bytes:
        if missing := set(range(1, min(count, _MOST_PIECES) + 1)) - self._pieces.keys():
            raise ResultError(
                "incomplete", f"{len(missing)} of its {count} pieces are missing in the log. Read the log again"
            )
        data = b"".join(self._pieces[number] for number in sorted(self._pieces))
        found = (len(self._pieces), len(data), hashlib.sha256(data).hexdigest())
        if (count, size, digest) != found or size > RESULT_BYTES:
            raise _damaged("its pieces don't make up what was sent")
        return data


def _damaged(reason: str) -> ResultError:
    return ResultError("damaged", f"{reason}. Read the log again; if that doesn't help, the provider has spoilt it")
