"""A job's data: what is fetched before its steps, and sent away after them.

Credentials and URLs, which may have tokens in them, come to programs in their environment or in files, never by the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from deepsquare.compiler.quoting import fill, quote, write_file
from deepsquare.workflow.models import Workflow
from deepsquare.workflow.staging import S3Data

FUNCTIONS = r"""
# stage WHAT CODE: fetches the job's input, or sends its output away after steps that ended so.
stage() {
    told=''
    /bin/bash "$private/stage-$1" "$2" &
    direct=$!
    join "$!"
}
"""
"""What the lines of `Staging` call, beside those of `flow`."""

SYNC_FUNCTIONS = r"""
# Sends the output away again and again.
sync_output() {
    /bin/bash "$private/sync" &
    syncing=$!
}
stop_syncing() {
    kill -s TERM "$syncing" 2>/dev/null
    wait "$syncing" 2>/dev/null
}
"""
"""More of it, for output that is sent all the time."""

# Whoever ends this shell ends what it waits for, too.
_BEGIN = """\
umask 077
LC_ALL=C
child=''
trap '[ -z "$child" ] || { kill -s TERM "$child" 2>/dev/null; wait "$child"; }; exit 143' TERM
await() {
    "$@" &
    child=$!
    wait "$child"
    local code=$?
    child=''
    return "$code"
}
fail() {
    printf '%s\\n' "$1"
    exit 1
}
have() { command -v "$1" >/dev/null || fail "This provider can't $2: its nodes have no $1."; }
# show FOLDER: what is in it.
show() {
    (cd "$1" && find . -mindepth 1 ! -type d | sort | sed -n -e '1,100s/^..//p' -e '101s/.*/.../p')
}
exec </dev/null 2>&1
"""

_FETCH_HTTP = """\
have curl "fetch the input"
await curl --disable --config "${0%/*}/input.curl" --output "$DEEPSQUARE_INPUT"/__NAME__ || fail __FAILURE__
"""

_UNPACK = r"""
inside() { cd "$unpacked" && exec "$@"; }
# unpack FILE: if it is packed, and beside it; it stays, whatever is in it.
unpack() {
    unpacked=$(mktemp -d "$DEEPSQUARE_INPUT/.unpacked.XXXXXX") || fail "The input could not be unpacked."
    unpack_inside "$1"
    # Closed folders can't be moved.
    chmod -R u+rwX "$unpacked"
    rm -rf "${unpacked:?}/${1##*/}"
    find "$unpacked" -mindepth 1 -maxdepth 1 -exec mv -t "$DEEPSQUARE_INPUT" {} + || fail "The input could not be unpacked."
    rm -rf "$unpacked"
}
unpack_inside() {
    local magic plain='' said
    magic=$(head -c 6 "$1" | od -An -v -tx1 | tr -d ' \n')
    case $magic in
    504b0304* | 504b0506*)
        have unzip "unpack zip files"
        # 1 is a warning.
        await inside unzip -q -o "$1" || [ "$?" -eq 1 ] || fail "The input could not be unpacked."
        return
        ;;
    377abcaf271c)
        have 7z "unpack 7z files"
        await inside 7z x -y -aoa -bd -bso0 -- "$1" || fail "The input could not be unpacked."
        return
        ;;
    526172211a07)
        have unrar "unpack rar files"
        await inside unrar x -o+ -y -inul -- "$1" || fail "The input could not be unpacked."
        return
        ;;
    1f8b*) plain=gzip ;;
    425a68*) plain=bzip2 ;;
    fd377a585a00) plain=xz ;;
    28b52ffd*) plain=zstd ;;
    esac
    [ -z "$plain" ] || have "$plain" "unpack $plain files"
    # The mark of tar, which old archives don't have.
    said=$(${plain:-cat} ${plain:+-dc} <"$1" 2>/dev/null | head -c 262 | tail -c 5 | tr -d '\0')
    case $said:$1 in
    ustar:* | *.tar | *.tar.* | *.tgz | *.tbz2 | *.txz)
        await inside tar -xf "$1" || fail "The input could not be unpacked."
        ;;
    */.gz | */.bz2 | */.xz | */.zst) ;;
    *.gz | *.bz2 | *.xz | *.zst)
        [ -n "$plain" ] || return 0
        await "$plain" -dc "$1" >"${1%.*}" || fail "The input could not be unpacked."
        ;;
    esac
}
unpack "$DEEPSQUARE_INPUT"/__NAME__
"""

_S3 = """\
have "${DEEPSQUARE_S5CMD:-s5cmd}" "use S3"
# Only what the workflow says: no keys of the node's, no file in a home.
unset "${!AWS_@}" "${!S3_@}"
export AWS_ACCESS_KEY_ID=__ID__ AWS_SECRET_ACCESS_KEY=__KEY__ S3_ENDPOINT_URL=__ENDPOINT__
export AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_CONFIG_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
# s5cmd would wait for ever for a store that takes connections and says nothing.
if command -v curl >/dev/null; then
    await curl --disable --config "${0%/*}/__NAME__.curl" --max-time 60 --output /dev/null || fail "The store does not answer."
fi
# It succeeds with an error when it can't read a file, and leaves out those behind it.
s3() {
    await "${DEEPSQUARE_S5CMD:-s5cmd}" --log error --retry-count 5 "$@" 2>"${0%/*}/__NAME__.errors"
    local code=$?
    cat "${0%/*}/__NAME__.errors"
    [ ! -s "${0%/*}/__NAME__.errors" ] || return 1
    return "$code"
}
"""

# s5cmd would write such names outside of the folder.
_FETCH_S3 = """\
if "${DEEPSQUARE_S5CMD:-s5cmd}" --retry-count 5 ls __SOURCE__ 2>/dev/null | grep -q -E '(^|[/[:space:]])[.][.](/|$)'; then
    fail "The input could not be fetched: a key in the bucket has .. in it."
fi
s3 cp --source-region __REGION__ __SOURCE__ "$DEEPSQUARE_INPUT/" || fail __FAILURE__
"""

_FETCHED = """\
# allow MODE: what is in a folder before the folder, which may be closed by it; not what links lead to.
allow() { find "$DEEPSQUARE_INPUT" -depth ! -type l -exec chmod "$1" {} +; }
allow 700
printf 'Input contains:\\n'
show "$DEEPSQUARE_INPUT"
__MODE__"""

# Links are followed, by what sends the output too; a step may even have put one in the folder's place.
_OUTPUT = """\
output=$DEEPSQUARE_OUTPUT/
# What can't be looked into would be left out in silence.
find -L "$output" >/dev/null || fail "The output could not be read."
printf 'Output contains:\\n'
show "$output"
if [ -z "$(find -L "$output" ! -type d -print -quit)" ]; then
    echo "There is no output; nothing is sent."
    exit 0
fi
"""

_SEND_HTTP = """\
have curl "send the output"
cd "$STORAGE_PATH" || exit
file=$(find -L "$output" -type f -print -quit)
if [ -z "$file" ] || [ "$(find -L "$output" ! -type d -printf . | wc -c)" -ne 1 ]; then
    have zip "send more than one file of output"
    file=${0%/*}/output.zip
    await zip -q -r "$file" output || fail "The output could not be packed."
fi
await curl --disable --config "${0%/*}/output.curl" --upload-file "$file" --output "${0%/*}/answer" ||
    fail "The output could not be sent."
# Where it can be had, if the store says so.
if [ -s "${0%/*}/answer" ]; then
    head -c 4096 "${0%/*}/answer"
    echo
fi
"""

# All of it, since s5cmd takes files of the same size and an older date for those that are there.
_SEND_S3 = """\
odd=$(find -L "$output" -name '*[\\\\[:cntrl:]]*' -print -quit)
[ -z "$odd" ] || fail "The output could not be sent: a name has a backslash or a control character, which S3 can't be given: $odd"
s3 cp --destination-region __REGION__ "$output" __TARGET__ || fail "The output could not be sent."
__DELETE__"""

# Only when all is there and the steps have succeeded: what can't be read, or was not made, would be removed from the bucket.
_DELETE_S3 = """\
[ "$1" = 0 ] || exit 0
s3 sync --delete --destination-region __REGION__ "$output" __TARGET__ || fail "The bucket could not be tidied up."
"""

_SYNC_S3 = """\
while :; do
    await sleep 5
    [ -n "$(find -L "$DEEPSQUARE_OUTPUT/" ! -type d -print -quit)" ] || continue
    s3 sync --destination-region __REGION__ "$DEEPSQUARE_OUTPUT/" __TARGET__ ||
        echo "The output could not be sent; it is tried again."
done
"""


class Staging:
    """The data of one workflow as shell: `files` write scripts, the lines before and behind the steps run them."""

    def __init__(self, workflow: Workflow) -> None:
        self.files: list[str] = []
        self._input = workflow.input
        self._output = workflow.output
        self._mode = workflow.input_mode
        self.syncs = bool(workflow.continuous_output_sync and self._output is not None and self._output.s3 is not None)
        """Whether the output is sent all the time."""
        self._cannot_sync = bool(workflow.continuous_output_sync) and not self.syncs
        self._write_input()
        self._write_output()

    @property
    def is_used(self) -> bool:
        """Whether there is anything to stage."""
        return bool(self.files)

    def before(self) -> Iterator[str]:
        """The lines before the steps."""
        if self._cannot_sync:
            yield "echo 'continuousOutputSync counts only with output to S3; ignored here.'"
        if self._has_input:
            yield "stage input 0"
            yield "check"
            # Its keys: steps on the host run as the same account.
            yield 'rm -f "$private/stage-input" "$private/input".*'
        if self.syncs:
            yield "sync_output"

    def behind(self) -> Iterator[str]:
        """The lines behind the steps, whose exit code is in $code where the output is sent all the time."""
        if self.syncs:
            yield "steps_code=$code"
            yield "stop_syncing"
            yield 'stage output "$steps_code"'
            yield '[ "$steps_code" -eq 0 ] || exit "$steps_code"'
            yield "check"
        elif self._has_output:
            yield "go_on"
            yield "stage output 0"
            yield "check"

    @property
    def _has_input(self) -> bool:
        return self._input is not None and (self._input.http is not None or self._input.s3 is not None)

    @property
    def _has_output(self) -> bool:
        return self._output is not None and (self._output.http is not None or self._output.s3 is not None)

    def _write_input(self) -> None:
        data = self._input
        if data is None:
            return
        if data.http is not None:
            name = quote(file_name(data.http.url))
            self._write("input.curl", _curl(data.http.url, "fail", "location"))
            fetch = fill(_FETCH_HTTP + _UNPACK, NAME=name, FAILURE=_not_fetched(data.http.url))
        elif data.s3 is not None:
            source = quote(f"{data.s3.bucket_url}{data.s3.path}*")
            words = {"REGION": quote(data.s3.region), "SOURCE": source, "FAILURE": _not_fetched(data.s3.endpoint_url)}
            fetch = self._s3(data.s3, "input") + fill(_FETCH_S3, **words)
        else:
            return
        mode = "" if self._mode is None else f"allow {self._mode:03o}\n"
        self._write("stage-input", _BEGIN + fetch + fill(_FETCHED, MODE=mode))

    def _write_output(self) -> None:
        data = self._output
        if data is None:
            return
        if data.http is not None:
            self._write("output.curl", _curl(data.http.url, "fail", "location"))
            self._write("stage-output", _BEGIN + _OUTPUT + _SEND_HTTP)
        elif data.s3 is not None:
            target = f"{data.s3.bucket_url}{data.s3.path}"
            words = {
                "REGION": quote(data.s3.region),
                # Otherwise s5cmd would take it for a file's name.
                "TARGET": quote(target if target.endswith("/") else f"{target}/"),
            }
            begin = _BEGIN + self._s3(data.s3, "output")
            delete = fill(_DELETE_S3, **words) if data.s3.delete_sync else ""
            self._write("stage-output", begin + _OUTPUT + fill(_SEND_S3, DELETE=delete, **words))
            if self.syncs:
                self._write("sync", begin + fill(_SYNC_S3, **words))

    def _s3(self, data: S3Data, name: str) -> str:
        self._write(f"{name}.curl", _curl(data.endpoint_url))
        return fill(
            _S3,
            ID=quote(data.access_key_id.get_secret_value()),
            KEY=quote(data.secret_access_key.get_secret_value()),
            ENDPOINT=quote(data.endpoint_url),
            NAME=name,
        )

    def _write(self, name: str, text: str) -> None:
        self.files.append(write_file(f'"$private/{name}"', text.rstrip("\n")))


def file_name(url: str) -> str:
    """The name of a file that is downloaded: the last part of the URL's path, at most 255 bytes."""
    name = unquote(urlsplit(url).path.rpartition("/")[2], errors="replace").replace("\0", "").rpartition("/")[2]
    if name in ("", ".", ".."):
        return "index.html"
    return name.encode()[-255:].decode(errors="ignore")


def _not_fetched(url: str) -> str:
    # No more of the URL: there may be tokens in the rest.
    return quote(f"The input could not be fetched from {urlsplit(url).hostname}.")


def _curl(url: str, *options: str) -> str:
    """A configuration file of curl (curl(1), "--config")."""
    escaped = url.replace("\\", "\\\\").replace('"', '\\"')
    # A server that stops talking is given up after a minute.
    return "\n".join(
        [
            f'url = "{escaped}"',
            *("silent", "show-error", "globoff", 'proto = "=http,https"', 'proto-redir = "=http,https"'),
            *("connect-timeout = 30", "speed-limit = 1", "speed-time = 60", "retry = 4", "retry-connrefused"),
            *options,
        ]
    )
