"""The order in which steps run: one after the other, by conditions, in loops, side by side; and what follows a failure.

Lists of steps become shell lines. What may fail, or be ended, without ending all is a group: a subshell in the background that
this shell waits for. A shell that gets a signal passes it on to its group or step, and then its own end is a failure like any
other: so `catch` and `finally` run on cancellation and time-out too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from deepsquare.compiler.quoting import quote, write_file
from deepsquare.compiler.steps import ENVIRONMENT, Runs
from deepsquare.workflow.models import For, Launch, Resources, Step
from deepsquare.workflow.modules import ResolvedUse

FUNCTIONS = r"""
# What steps see beside the job's environment: a file that grows in loops, in modules and behind failures.
scope=$private/variables
# The processes that this shell waits for, and those that it has launched, each as PID:SIGNAL.
children=''
launched=''
# The one of them that is an srun, or runs a command without one.
srun=''
direct=''
# What a step gets that is to end, and the process that ends one that stays; set where catch or finally comes behind it.
passes=TERM
pressing=''
guarded=''
# Who wants this shell to end: the job, which gets no more steps then, or the group around it. Empty: nobody.
ending=''
# Set until somebody has taken notice, and when there is no more time.
cancelled=''
hurried=''
# What children have been told since the last one was begun, which may not have been known yet.
told=''
interrupted=''

begin() {
    children='' launched='' srun='' direct='' pressing='' told=''
    trap 'on_signal job' TERM INT
    trap 'on_signal group' USR1
    trap 'on_signal hurry' USR2
    # From here on it may be told.
    : >"$private/begun-$BASHPID"
}
# tell PID SIGNAL: a group hears of it by itself, a step by Slurm, since srun passes on few signals.
tell() {
    local id='' tries=0 try
    case $'\n'"$(jobs -pr)"$'\n' in
    *$'\n'"$1"$'\n'*) ;;
    # It has ended, and its number may be somebody else's.
    *) return 0 ;;
    esac
    if [ "$1" = "$srun" ]; then
        # When the job ends, Slurm has told the tasks, and lets them be; otherwise srun would have them killed at once.
        if [ "$ending" != job ]; then read -r id 2>/dev/null <"$private/id-$BASHPID"; fi
        if [ -n "$id" ]; then
            for try in 1 2 3; do
                if scancel --quiet --signal="$passes" "$SLURM_JOB_ID.$id" 2>/dev/null; then break; fi
                sleep "0.$try"
            done
        fi
        if [ -z "$id" ] || [ -n "$hurried" ]; then kill -s TERM "$1" 2>/dev/null; fi
        [ "$ending" != job ] || [ -z "$guarded" ] || press "$1"
    elif [ "$1" = "$direct" ]; then
        kill -s "$passes" "$1" 2>/dev/null
        [ "$ending" != job ] || [ -z "$guarded" ] || press "$1"
    else
        until [ -e "$private/begun-$1" ] || [ "$tries" -ge 100 ]; do
            sleep 0.01
            tries=$((tries + 1))
        done
        kill -s "$2" "$1" 2>/dev/null
    fi
}
# press PID: a step that stays when the job is to end gets half of the time that there is; the rest is for catch and finally.
press() {
    (
        left=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
        for ((left = ${left:-30} / 2; left > 0; left--)); do sleep 1; done
        kill -s KILL "$1"
    ) >/dev/null 2>&1 &
    pressing=$!
}
# noted PID: for children that were begun while others were told.
noted() { [ -z "$told" ] || tell "$1" "$told"; }
on_signal() {
    interrupted=1
    local child signal=USR1
    case $1 in
    hurry) passes=KILL signal=USR2 hurried=1 ;;
    job) [ "$ending" != job ] || return 0; signal=TERM ;;
    *) [ -z "$ending" ] || return 0 ;;
    esac
    [ "$1" = hurry ] || ending=$1
    cancelled=1 told=$signal
    for child in $children $launched; do tell "${child%:*}" "$signal"; done
}
# await PID: its exit code is in $code then, also when signals come in between.
await() {
    while :; do
        interrupted=''
        wait "$1"
        code=$?
        [ -n "$interrupted" ] || break
    done 2>/dev/null
    if [ -n "$cancelled" ] && [ "$code" -eq 0 ]; then code=143; fi
}
# join PID: like await, for what this shell does nothing beside.
join() {
    children=$1
    noted "$1"
    await "$1"
    # Waited for, so that bash doesn't report it.
    [ -z "$pressing" ] || { kill -s KILL "$pressing"; wait "$pressing"; } 2>/dev/null
    children='' srun='' direct='' pressing=''
}
check() { [ "$code" -eq 0 ] || exit "$code"; }
go_on() {
    [ -z "$hurried" ] || exit 137
    [ -z "$cancelled" ] || exit 143
}
# run NUMBER NAME OPTION...: one step.
run() {
    local file=$private/step-$1 name=$2 id=$private/id-$BASHPID
    shift 2
    told=''
    go_on
    # Not removed: another node, on which it is written, would be believed later.
    : >"$id"
    if [ "$ending" = job ]; then
        # Slurm has no more steps for a job that ends.
        /bin/bash "$file" "$scope" "$id" &
        direct=$!
    elif [ "$1" = --ntasks=1 ]; then
        srun "$@" /bin/bash "$file" "$scope" "$id" &
        srun=$!
    else
        srun "$@" /bin/bash "$file" "$scope" "$id" 2>"$id.said" &
        srun=$!
    fi
    join "$!"
    [ ! -e "$id.said" ] || first_code "$id.said"
    [ ! -d "$private/enroot" ] || discard "$id"
    [ "$code" -eq 0 ] || [ -n "$cancelled" ] || printf 'deepsquare: %s failed with exit code %s\n' "$name" "$code" >&2
    check
}
# first_code FILE: of several tasks, the first that fails decides, and not the others, which are ended then.
first_code() {
    local said
    said=$(grep -m 1 ': tasks\{0,1\} [0-9,-]*: ' "$1")
    case $said in
    *': Exited with exit code '*) [ -n "$cancelled" ] || code=${said##* } ;;
    esac
    cat "$1" >&2
    rm -f "$1"
}
# discard FILE: the unpacked images of the step whose number is in it.
discard() {
    local step='' folder
    read -r step <"$1"
    [ -n "$step" ] || return 0
    for folder in "$private/enroot/data/$step".*; do
        [ ! -d "$folder" ] || remove "$folder"
    done
}
# holds NUMBER NAME: whether a step's condition is true; one that is no condition ends this shell.
holds() {
    told=''
    go_on
    /bin/bash "$private/if-$1" "$scope" /dev/null &
    direct=$!
    join "$!"
    case $code in
    10 | 11) return $((code - 10)) ;;
    esac
    if [ "$code" -ge 128 ]; then exit 143; fi
    printf 'deepsquare: the if of %s is no test of bash\n' "$2" >&2
    exit 2
}
# with FILE [NAME VALUE]...: from now on steps see more variables.
with() {
    local file=$private/$1-$BASHPID
    shift
    cat "$scope" >"$file" || exit 1
    while [ $# -gt 0 ]; do
        printf 'export %s=%q\n' "$1" "$2" >>"$file" || exit 1
        shift 2
    done
    scope=$file
}
# places FIFO COUNT: so many turns of a loop may run at a time. Each gives its place back: its process, its number, its code.
places() {
    rm -f "$1"
    mkfifo "$1" || no_room
    exec 9<>"$1"
    first='' first_result=0
    local number
    for ((number = 0; number < $2; number++)); do echo 'none 0 0' >&9; done
}
# ended_turn: waits for the end of one. One that was killed says nothing, and has failed.
ended_turn() {
    local child number result
    until read -r -t 5 ended number result <&9; do
        for child in $children; do
            if kill -0 "$child" 2>/dev/null; then continue; fi
            # What it said has been said by now.
            if read -r -t 1 ended number result <&9; then break 2; fi
            wait "$child"
            result=$? ended=$child number=0
            break 2
        done
    done
    children=${children/" $ended "/}
    if [ "$result" -ne 0 ] && { [ -z "$first" ] || [ "$number" -lt "$first" ]; }; then first=$number first_result=$result; fi
}
# place: waits for a free one; false when there is to be no more turn.
place() {
    local ended=''
    ended_turn
    told=''
    [ -n "$cancelled$hurried" ] || return 0
    # For those who gather the turns.
    echo 'none 0 0' >&9
    return 1
}
# turn FIFO NUMBER: the end of a turn.
turn() {
    local code=$?
    echo "$BASHPID $2 $code" >"$1"
}
# gather COUNT: waits for all turns; $code is that of the first one that failed.
gather() {
    local number ended=''
    for ((number = 0; number < $1; number++)); do ended_turn; done
    exec 9>&-
    code=$first_result
    if [ -n "$cancelled" ] && [ "$code" -eq 0 ]; then code=143; fi
}
# depend PID: waits for what was launched.
depend() {
    local entry kept=''
    await "$1"
    for entry in $launched; do [ "${entry%:*}" = "$1" ] || kept="$kept $entry"; done
    launched=$kept
}
# finish: the end of a list of steps that has launched others, which get their signal, or time where that is 0.
finish() {
    local final=$? entry timer='' second
    trap - EXIT
    for entry in $launched; do
        if [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ]; then tell "${entry%:*}" USR1; fi
    done
    if [ -n "$launched" ]; then
        (
            for ((second = 0; second < 30; second++)); do sleep 1; done
            for entry in $launched; do
                if [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ]; then kill -s USR2 "${entry%:*}"; fi
            done
        ) >/dev/null 2>&1 &
        timer=$!
    fi
    for entry in $launched; do
        await "${entry%:*}"
        [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ] || final=$code
    done
    [ -z "$timer" ] || kill -s KILL "$timer" 2>/dev/null
    exit "$final"
}
begin
"""
"""What the lines of a `Flow` call."""

IMAGE_FUNCTIONS = r"""
# fetch NUMBER: an image of a registry, unless it is there.
fetch() {
    told=''
    go_on
    /bin/bash "$private/image-$1" &
    direct=$!
    join "$!"
    check
}
"""
"""More of it, for steps whose images are in registries."""

MODULE_FUNCTIONS = r"""
# open_module NUMBER: from now on what steps leave for later ones is the module's own.
open_module() {
    # Where containers see it, too.
    local file=$STORAGE_PATH/.deepsquare/outputs-$1-$BASHPID
    outer=$DEEPSQUARE_ENV
    cp "$outer" "$file" || exit 1
    [ -z "$(tail -c 1 "$file")" ] || echo >>"$file"
    lines=$(wc -l <"$file")
    export DEEPSQUARE_ENV=$file
    with "outputs-$1-scope" DEEPSQUARE_ENV "$file"
}
# close_module PREFIX NAME...: of what they left, these reach the steps after the module, with other names.
close_module() {
    local prefix=$1 name
    shift
    [ -z "$(tail -c 1 "$outer")" ] || echo >>"$outer"
    for name in "$@"; do
        tail -n "+$((lines + 1))" "$DEEPSQUARE_ENV" | sed -n "s/^$name=/${prefix}_$name=/p" | tail -n 1 >>"$outer"
    done
}
"""
"""More of it, for modules that export variables."""

# Side by side. Each may leave 32 characters in a pipe, which holds 65,536.
_MOST_TURNS = 2048

_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 15: "TERM"}


class Flow:
    """The steps of one workflow as shell: `files` first, which write what the steps run, then `lines`."""

    def __init__(self, steps: Iterable[Step], job: Resources, runs: Runs) -> None:
        self.files: list[str] = []
        self.exports = False
        """Whether there are modules that export variables."""
        self._job = job
        self._runs = runs
        self._numbers = itertools.count(1)
        self.lines = self._list(tuple(steps), "steps")

    def _list(self, steps: tuple[Step, ...], place: str) -> list[str]:
        lines = [line for number, step in enumerate(steps) for line in self._step(step, f"{place}[{number}]")]
        if not any(step.launch for step in steps):
            return lines
        names = [step.launch.handle_name for step in steps if step.launch is not None]
        handles = [f"{_handle(name)}='' {_code(name)}=0" for name in names if name is not None]
        return [*group("trap finish EXIT", *handles, *lines), "check"]

    def _step(self, step: Step, place: str) -> Iterator[str]:
        for name in step.depends_on:
            yield f'[ -n "${_code(name)}" ] || {{ depend "${_handle(name)}"; {_code(name)}=$code; }}'
            yield f'code="${_code(name)}"'
            yield "check"
        if not step.if_:
            yield from self._guarded(step, place)
            return
        number = next(self._numbers)
        condition = (
            f'scope=$1\nset --\n{ENVIRONMENT}cd "$STORAGE_PATH" || exit 2\n'
            f"if [[ {step.if_.rstrip()} ]]; then exit 10; else exit 11; fi"
        )
        self.files.append(write_file(f'"$private/if-{number}"', condition))
        yield f"if holds {number} {_name(step, place)}; then"
        yield from _indented(list(self._guarded(step, place)) or [":"])
        yield "fi"

    def _guarded(self, step: Step, place: str) -> list[str]:
        lines = list(self._body(step, place))
        if step.catch:
            number = next(self._numbers)
            caught = [
                f'with caught-{number} DEEPSQUARE_ERROR_CODE "$code"',
                "cancelled=''",
                *self._list(step.catch, f"{place}.catch"),
            ]
            lines = [
                *group("guarded=1", *lines),
                f"code_{number}=$code",
                'if [ "$code" -ne 0 ]; then',
                *_indented(group(*caught)),
                # A job that ends is not saved by it.
                f'    [ -z "$ending" ] || exit "$code_{number}"',
                "fi",
                "check",
            ]
        if step.finally_:
            number = next(self._numbers)
            lines = [
                *group("guarded=1", *lines),
                f"code_{number}=$code",
                *group("cancelled=''", *self._list(step.finally_, f"{place}.finally")),
                f'[ "$code_{number}" -eq 0 ] || exit "$code_{number}"',
                "check",
            ]
        return lines if step.launch is None else list(_launched(step.launch, lines))

    def _body(self, step: Step, place: str) -> Iterator[str]:
        if step.run is not None:
            number = next(self._numbers)
            compiled = self._runs.compile(step.run, number)
            self.files.append(compiled.files)
            if compiled.image is not None:
                yield f"fetch {compiled.image}"
            yield " ".join(["run", str(number), _name(step, place), *compiled.options])
        elif step.for_ is not None:
            yield from self._loop(step.for_, f"{place}.for")
        elif step.launch is not None:
            yield from self._list(step.launch.steps, f"{place}.launch.steps")
        elif step.use is not None:
            assert isinstance(step.use, ResolvedUse)
            yield from self._module(step.use, f"{place}.use")
        else:
            yield from self._list(step.steps, f"{place}.steps")

    def _module(self, use: ResolvedUse, place: str) -> Iterator[str]:
        number = next(self._numbers)
        values = [word for value in use.inputs() for word in (value.key, quote(value.value))]
        lines = [" ".join([f"with use-{number}", *values]), *self._list(use.module.steps, f"{place}.steps")]
        if use.export_env_as is None:
            # What they leave for later steps is the job's.
            yield f"scope_{number}=$scope"
            yield from lines
            yield f"scope=$scope_{number}"
            return
        self.exports = True
        names = " ".join(output.key for output in use.module.outputs)
        yield from group(f"open_module {number}", *lines, f"close_module {use.export_env_as} {names}".rstrip())
        yield "check"

    def _loop(self, loop: For, place: str) -> Iterator[str]:
        number = next(self._numbers)
        turn = f"turn_{number}"
        if loop.range is not None:
            name, step = "index", loop.range.step
            ends = f"{turn} {'<=' if step > 0 else '>='} {loop.range.end}"
            head = f"for (({turn} = {loop.range.begin}; {ends}; {turn} += {step})); do"
        else:
            name, values = "item", f"items_{number}"
            yield f"{values}=({' '.join(map(quote, loop.items or ()))})"
            head = f'for {turn} in ${{{values}[@]+"${{{values}[@]}}"}}; do'
        body = [
            f"scope=$scope_{number}",
            f'with loop-{number} {name} "${turn}"',
            *self._list(loop.steps, f"{place}.steps"),
        ]
        yield f"scope_{number}=$scope"
        if not loop.parallel:
            yield head
            yield from _indented(body)
            yield "done"
            yield f"scope=$scope_{number}"
            return
        # More can't run at a time: each step takes a task at least.
        turns = loop.range.count() if loop.range is not None else len(loop.items or ())
        count, fifo = max(1, min(self._job.tasks, turns, _MOST_TURNS)), f'"$private/places-{number}-$BASHPID"'
        yield f"fifo_{number}={fifo}"
        yield f'places "$fifo_{number}" {count}'
        yield f"number_{number}=0"
        yield head
        yield from _indented(
            [
                "place || break",
                f"number_{number}=$((number_{number} + 1))",
                "(",
                *_indented(["exec 9>&-", "begin", f'trap \'turn "$fifo_{number}" "$number_{number}"\' EXIT', *body]),
                ") &",
                'children="$children $! "',
                'noted "$!"',
            ]
        )
        yield "done"
        yield f"gather {count}"
        yield "check"


def _launched(launch: Launch, lines: list[str]) -> Iterator[str]:
    signal = _SIGNALS.get(launch.signal, "TERM")
    yield "told=''"
    yield "("
    yield from _indented(["begin", f"passes={signal}", *lines])
    yield ") &"
    yield f'launched="$launched $!:{launch.signal}"'
    if launch.handle_name is not None:
        yield f"{_handle(launch.handle_name)}=$! {_code(launch.handle_name)}=''"
    yield 'noted "$!"'


def group(*lines: str) -> list[str]:
    """Lines that may fail, or be ended, without ending the shell they stand in; their exit code is in $code then."""
    return ["told=''", "(", *_indented(["begin", *lines]), ") &", 'join "$!"']


def _name(step: Step, place: str) -> str:
    """A step for people, as a word of the shell."""
    return quote(f'{place} "{step.name}"' if step.name else place)


def _indented(lines: Iterable[str]) -> list[str]:
    # Lines of quoted text run on in the next ones, which must stay as they are.
    return [f"    {line}" for line in lines]


def _handle(name: str) -> str:
    return f"handle_{name.lower()}"


def _code(name: str) -> str:
    return f"code_of_{name.lower()}"
