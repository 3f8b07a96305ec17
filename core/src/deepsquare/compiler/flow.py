"""The order in which steps run: one after the other, by conditions, in loops, side by side; and what follows a failure.

Lists of steps become shell lines. What may fail, or be ended, without ending all is a group: a subshell in the background that
this shell waits for. A shell that gets a signal passes it on to its group or step, and then its own end is a failure like any
other: so `catch` and `finally` run on cancellation and time-out too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from deepsquare.compiler.quoting import quote, write_file
from deepsquare.compiler.steps import ENVIRONMENT, compile_run
from deepsquare.workflow.models import For, Launch, Resources, Step

FUNCTIONS = r"""
# What steps see: a file that grows in loops and behind failures.
scope=$private/environment
# The processes that this shell waits for, and those that it has launched, each as PID:SIGNAL.
children=
launched=
# The one of them that is an srun, or runs a command without one.
srun=
direct=
# What a step gets that is to end.
passes=TERM
# Who wants this shell to end: the job, which gets no more steps then, or the group around it. Empty: nobody.
ending=
# Set until somebody has taken notice.
cancelled=
interrupted=

begin() {
    children='' launched='' srun='' direct=''
    trap 'on_signal job' TERM INT
    trap 'on_signal group' USR1
    trap 'on_signal hurry' USR2
}
# tell PID SIGNAL: a group hears of it by itself, a step by Slurm, since srun passes on few signals.
tell() {
    if [ "$1" = "$srun" ]; then
        local id=''
        read -r id 2>/dev/null <"$private/id-$BASHPID"
        { [ -n "$id" ] && scancel --quiet --signal="$passes" "$SLURM_JOB_ID.$id"; } 2>/dev/null || kill -s TERM "$1" 2>/dev/null
    elif [ "$1" = "$direct" ]; then
        kill -s "$passes" "$1" 2>/dev/null
    else
        kill -s "$2" "$1" 2>/dev/null
    fi
}
on_signal() {
    interrupted=1
    local child signal=USR1
    case $1 in
    hurry) passes=KILL signal=USR2 ;;
    job) [ "$ending" != job ] || return 0; signal=TERM ;;
    *) [ -z "$ending" ] || return 0 ;;
    esac
    [ "$1" = hurry ] || ending=$1
    cancelled=1
    for child in $children $launched; do tell "${child%:*}" "$signal"; done
}
# await PID: its exit code is in $code then, also when signals come in between.
await() {
    while :; do
        interrupted=
        wait "$1"
        code=$?
        [ -n "$interrupted" ] || break
    done 2>/dev/null
    if [ -n "$cancelled" ] && [ "$code" -eq 0 ]; then code=143; fi
}
# join PID: like await, for what this shell does nothing beside.
join() {
    children=$1
    await "$1"
    children='' srun='' direct=''
}
# gather: waits for all children; $code is the first bad one.
gather() {
    local child worst=0
    for child in $children; do
        await "$child"
        [ "$worst" -ne 0 ] || worst=$code
    done
    children='' code=$worst
}
check() { [ "$code" -eq 0 ] || exit "$code"; }
# run NUMBER OPTION...: one step.
run() {
    [ -z "$cancelled" ] || exit 143
    local file=$private/step-$1 id=$private/id-$BASHPID
    shift
    rm -f "$id"
    if [ "$ending" = job ]; then
        # Slurm has no more steps for a job that ends.
        /bin/bash "$file" "$scope" "$id" &
        direct=$!
    else
        srun "$@" /bin/bash "$file" "$scope" "$id" &
        srun=$!
    fi
    join "$!"
    check
}
# holds NUMBER: whether a step's condition is true; one that is no condition ends this shell. Bash ends with 0 then.
holds() {
    [ -z "$cancelled" ] || exit 143
    /bin/bash "$private/if-$1" "$scope" /dev/null &
    join "$!"
    case $code in
    10 | 11) return $((code - 10)) ;;
    0) exit 2 ;;
    *) exit "$code" ;;
    esac
}
# with FILE NAME VALUE: from now on steps see one more variable.
with() {
    local file=$private/$1-$BASHPID
    { cat "$scope" && printf 'export %s=%q\n' "$2" "$3"; } >"$file" || exit 1
    scope=$file
}
# depend HANDLE_PID: waits for what was launched.
depend() {
    local entry kept=''
    await "$1"
    for entry in $launched; do [ "${entry%:*}" = "$1" ] || kept="$kept $entry"; done
    launched=$kept
}
# finish: the end of a list of steps that has launched others, which get their signal, or time where that is 0.
finish() {
    local final=$? entry timer
    trap - EXIT
    for entry in $launched; do
        if [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ]; then tell "${entry%:*}" USR1; fi
    done
    {
        sleep 30
        for entry in $launched; do
            if [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ]; then kill -s USR2 "${entry%:*}"; fi
        done
    } >/dev/null 2>&1 &
    timer=$!
    for entry in $launched; do
        await "${entry%:*}"
        [ "$final" -ne 0 ] || [ "${entry#*:}" -ne 0 ] || final=$code
    done
    kill -s KILL "$timer" 2>/dev/null
    exit "$final"
}
begin
"""
"""What the lines of a `Flow` call."""

_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 15: "TERM"}


class Flow:
    """The steps of one workflow as shell: `files` first, which write what the steps run, then `lines`."""

    def __init__(self, steps: Iterable[Step], job: Resources) -> None:
        self.files: list[str] = []
        self._job = job
        self._numbers = itertools.count(1)
        self.lines = self._list(tuple(steps))

    def _list(self, steps: tuple[Step, ...]) -> list[str]:
        lines = [line for step in steps for line in self._step(step)]
        if not any(step.launch for step in steps):
            return lines
        handles = [f"{_handle(name)}='' {_handle(name)}_code=0" for name in _handles(steps)]
        return [*_group("trap finish EXIT", *handles, *lines), "check"]

    def _step(self, step: Step) -> Iterator[str]:
        for name in step.depends_on:
            yield f'[ -n "${_handle(name)}_code" ] || {{ depend "${_handle(name)}"; {_handle(name)}_code=$code; }}'
            yield f'code="${_handle(name)}_code"'
            yield "check"
        if not step.if_:
            yield from self._guarded(step)
            return
        number = next(self._numbers)
        condition = (
            f'scope=$1\nset --\n{ENVIRONMENT}cd "$STORAGE_PATH" || exit 2\n'
            f"if [[ {step.if_}\n]]; then exit 10; else exit 11; fi"
        )
        self.files.append(write_file(f'"$private/if-{number}"', condition))
        yield f"if holds {number}; then"
        yield from _indented(list(self._guarded(step)) or [":"])
        yield "fi"

    def _guarded(self, step: Step) -> list[str]:
        lines = list(self._body(step))
        if step.catch:
            number = next(self._numbers)
            caught = [f'with caught-{number} DEEPSQUARE_ERROR_CODE "$code"', "cancelled=", *self._list(step.catch)]
            lines = [
                *_group(*lines),
                f"code_{number}=$code",
                'if [ "$code" -ne 0 ]; then',
                *_indented(_group(*caught)),
                # A job that ends is not saved by it.
                f'    [ -z "$ending" ] || exit "$code_{number}"',
                "fi",
                "check",
            ]
        if step.finally_:
            number = next(self._numbers)
            lines = [
                *_group(*lines),
                f"code_{number}=$code",
                *_group("cancelled=", *self._list(step.finally_)),
                f'[ "$code_{number}" -eq 0 ] || exit "$code_{number}"',
                "check",
            ]
        return lines

    def _body(self, step: Step) -> Iterator[str]:
        if step.run is not None:
            number = next(self._numbers)
            compiled = compile_run(step.run, self._job, number)
            self.files.append(compiled.files)
            yield " ".join(["run", str(number), *compiled.options])
        elif step.for_ is not None:
            yield from self._loop(step.for_)
        elif step.launch is not None:
            yield from self._launch(step.launch)
        else:
            yield from self._list(step.steps)

    def _loop(self, loop: For) -> Iterator[str]:
        number = next(self._numbers)
        turn = f"turn_{number}"
        yield f"scope_{number}=$scope"
        if loop.range is not None:
            name, step = "index", loop.range.step
            ends = f"{turn} {'<=' if step > 0 else '>='} {loop.range.end}"
            yield f"for (({turn} = {loop.range.begin}; {ends}; {turn} += {step})); do"
        else:
            name = "item"
            values = f"items_{number}"
            yield f"{values}=({' '.join(map(quote, loop.items or ()))})"
            yield f'for {turn} in ${{{values}[@]+"${{{values}[@]}}"}}; do'
        body = [f"scope=$scope_{number}", f'with loop-{number} {name} "${turn}"', *self._list(loop.steps)]
        if loop.parallel:
            yield from _indented(["(", *_indented(["begin", *body]), ") &", 'children="$children $!"'])
        else:
            yield from _indented(body)
        yield "done"
        yield f"scope=$scope_{number}"
        if loop.parallel:
            yield "gather"
            yield "check"

    def _launch(self, launch: Launch) -> Iterator[str]:
        signal = _SIGNALS.get(launch.signal, "TERM")
        yield "("
        yield from _indented(["begin", f"passes={signal}", *self._list(launch.steps)])
        yield ") &"
        yield f'launched="$launched $!:{launch.signal}"'
        if launch.handle_name is not None:
            yield f"{_handle(launch.handle_name)}=$! {_handle(launch.handle_name)}_code=''"


def _group(*lines: str) -> list[str]:
    return ["(", *_indented(["begin", *lines]), ") &", 'join "$!"']


def _indented(lines: Iterable[str]) -> list[str]:
    # Lines of quoted text run on in the next ones, which must stay as they are.
    return [f"    {line}" for line in lines]


def _handles(steps: tuple[Step, ...]) -> list[str]:
    return [
        step.launch.handle_name for step in steps if step.launch is not None and step.launch.handle_name is not None
    ]


def _handle(name: str) -> str:
    return f"handle_{name.lower()}"
