"""Small workflows, each with what it prints, its exit code, and what it leaves: the meaning of the language as a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deepsquare.workflow.modules import FetchedModule

Steps = list[dict[str, Any]]
# What srun, and the shells of commands, say of failures and signals.
_NOT_OURS = re.compile(r"(srun|slurmstepd\S*|deepsquare): |.*: line \d+: |(Terminated|Hangup|Quit|Killed)$")


def own_lines(text: str) -> list[str]:
    """The lines of an output that the commands themselves wrote."""
    return [line for line in text.splitlines() if not _NOT_OURS.match(line)]


@dataclass(frozen=True)
class Row:
    """One workflow."""

    name: str
    steps: Steps
    prints: list[str] | None
    """The lines of its output; None where they are the shell's own words."""
    code: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    """More of the job's fields."""
    tasks: int = 1
    in_any_order: bool = False
    modules: dict[str, str] = field(default_factory=dict)
    """The module.yaml of each source that is used."""


def fetched(modules: Mapping[str, str]) -> Callable[[str], FetchedModule]:
    """What fetches these modules, each of them of the same commit."""
    return lambda source: FetchedModule(modules[source], "0123456789abcdef0123456789abcdef01234567")


def run(command: str, **fields: Any) -> dict[str, Any]:
    return {"run": {"command": command, **fields}}


def variables(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def items(*values: str, parallel: bool = False, steps: Steps) -> dict[str, Any]:
    return {"for": {"parallel": parallel, "items": list(values), "steps": steps}}


def numbers(
    begin: int, end: int, increment: int | None = None, *, parallel: bool = False, steps: Steps
) -> dict[str, Any]:
    return {
        "for": {"parallel": parallel, "range": {"begin": begin, "end": end, "increment": increment}, "steps": steps}
    }


def launch(*steps: dict[str, Any], handle: str | None = None, signal: int | None = None) -> dict[str, Any]:
    return {"launch": {"handleName": handle, "signalOnParentStepExit": signal, "steps": list(steps)}}


ITEM, INDEX, CAUGHT = run('echo "$item"'), run('echo "$index"'), run('echo "caught $DEEPSQUARE_ERROR_CODE"')
UNTIL_SIGNALLED = "trap 'echo got {0}; exit 0' {0}; echo up >up-{0}; while :; do sleep 0.1; done"


def until_up(*signals: str) -> dict[str, Any]:
    files = " && ".join(f"[ -e up-{name} ]" for name in signals)
    return run(f"until {files}; do sleep 0.1; done; echo parent")


SOURCE = "git.example/team/modules/it@v1"
GREET = """
name: greet
minimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}
inputs: [{key: WHO, default: world}, {key: HOW}]
outputs: [{key: TEXT}, {key: NONE}]
steps:
  - run: {command: 'echo "hello $WHO, $HOW.$EARLIER"; echo "TEXT=for $WHO" >>$DEEPSQUARE_ENV; echo OTHER=x >>$DEEPSQUARE_ENV'}
  - run: {command: 'echo "inside $TEXT"'}
"""
AROUND = """
name: around
minimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}
steps:
  - run: {command: echo before}
  {{- .Step.Use.Steps | toYaml | nindent 2 }}
  - run: {command: 'echo "after in {{ .Step.Name }} of {{ .Job.Resources.Tasks }}"'}
"""
FAILS = """
name: fails
minimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}
outputs: [{key: OUT}]
steps: [{run: {command: 'echo OUT=x >>$DEEPSQUARE_ENV; exit 7'}}]
"""


def use(source: str = SOURCE, export: str | None = None, steps: Steps | None = None, **args: str) -> dict[str, Any]:
    asked = {"source": source, "args": variables(**args), "exportEnvAs": export, "steps": steps or []}
    return {"use": asked}


ROWS = [
    # ------------------------------------------------------------------ modules
    Row(
        "a module has its inputs, and exports its outputs with a prefix",
        [
            run("echo EARLIER=! >>$DEEPSQUARE_ENV"),
            use(WHO="me", HOW="'$(x)", export="GOT"),
            run('echo "$GOT_TEXT|${GOT_NONE-none}|${TEXT-none}|${WHO-none}|${OTHER-none}|$EARLIER"'),
        ],
        ["hello me, '$(x).!", "inside for me", "for me|none|none|none|none|!"],
        modules={SOURCE: GREET},
    ),
    Row(
        "without a prefix what a module leaves is the job's",
        [use(), run('echo "$TEXT|$OTHER|${WHO-none}"')],
        ["hello world, .", "inside for world", "for world|x|none"],
        modules={SOURCE: GREET},
    ),
    Row(
        "inputs win over the job's own variables",
        [use(WHO="arg"), run('echo "$WHO"')],
        ["hello arg, .", "inside for arg", "job"],
        fields={"env": variables(WHO="job")},
        modules={SOURCE: GREET},
    ),
    Row(
        "a module around other steps",
        [{"name": "mine", **use(steps=[run("echo one"), items("two", steps=[run('echo "$item"')])])}],
        ["before", "one", "two", "after in mine of 1"],
        modules={SOURCE: AROUND},
    ),
    Row(
        "modules in modules",
        [{"name": "outer", **use(SOURCE, steps=[use("git.example/team/greet", export="IN"), run("echo $IN_TEXT")])}],
        ["before", "hello world, .", "inside for world", "for world", "after in outer of 1"],
        modules={SOURCE: AROUND, "git.example/team/greet": GREET},
    ),
    Row(
        "a failing module fails with its code and exports nothing",
        [{"catch": [CAUGHT], **use(export="X")}, run('echo "${X_OUT-none}"'), use(), run("echo never")],
        ["caught 7", "none"],
        7,
        modules={SOURCE: FAILS},
    ),
    Row(
        "modules side by side keep what they leave apart",
        [
            items("a", "b", parallel=True, steps=[use(WHO="$item", export="GOT"), run("sleep 0.2")]),
            run("grep -c '^GOT_TEXT=for' $DEEPSQUARE_ENV"),
        ],
        ["hello $item, .", "hello $item, .", "inside for $item", "inside for $item", "2"],
        tasks=2,
        in_any_order=True,
        modules={SOURCE: GREET},
    ),
    Row("mpi: none", [run("echo a", mpi="none")], ["a"]),
    Row(
        "a loop with more turns than places is ended with the others",
        [
            {"steps": [launch(numbers(1, 60, parallel=True, steps=[run("sleep 0.3")])), run("sleep 1; echo parent")]},
            run("echo end"),
        ],
        ["parent", "end"],
        tasks=2,
    ),
    Row(
        "after a failing turn the later ones still run",
        [numbers(1, 5, parallel=True, steps=[run("echo $index; [ $index -gt 1 ] || exit 3")])],
        ["1", "2", "3", "4", "5"],
        3,
        tasks=2,
        in_any_order=True,
    ),
    Row(
        "of several tasks the first that fails decides",
        [{"catch": [CAUGHT], **run("[ $SLURM_PROCID = 0 ] || exit 3; sleep 20", resources={"tasks": 2})}],
        ["caught 3"],
        tasks=2,
    ),
    Row(
        "what a step leaves wins over the job's variables, and over nothing else",
        [
            run(
                "(echo WHO=left; echo item=left; echo STORAGE_PATH=/nowhere; echo HOME=/nowhere; echo JOB=left) >>$DEEPSQUARE_ENV"
            ),
            items(
                "a",
                steps=[run('echo "$item|$WHO|$JOB|$PWD" | sed "s:$STORAGE_PATH:scratch:"', env=variables(WHO="step"))],
            ),
            use(WHO="arg"),
        ],
        ["a|step|left|scratch", "hello arg, .", "inside for arg"],
        fields={"env": variables(JOB="job")},
        modules={SOURCE: GREET},
    ),
    # ------------------------------------------------------------------ order
    Row("steps run one after the other", [run("echo a"), run("echo b")], ["a", "b"]),
    Row("a failing step ends the job with its code", [run("echo a; exit 3"), run("echo b")], ["a"], 3),
    Row("steps of steps", [{"steps": [run("echo a"), {"steps": [run("echo b")]}]}, run("echo c")], ["a", "b", "c"]),
    Row("an inner failure ends the outer steps", [{"steps": [{"steps": [run("exit 4")]}, run("echo b")]}], [], 4),
    Row("a step may be nothing", [{}, {"name": "nothing"}, {"steps": []}, run("echo a")], ["a"]),
    Row("a killed command has a shell's code", [run("kill -KILL $$")], [], 137),
    Row("an unknown command is code 127", [run("exec no-such-command-here 2>/dev/null")], [], 127),
    Row("the last command of a step decides", [run("false; echo a")], ["a"]),
    # ------------------------------------------------------------------ conditions
    Row("a true condition", [{"if": "1 -eq 1", **run("echo a")}], ["a"]),
    Row("a false condition is no failure", [{"if": "-e nothing", **run("echo a")}, run("echo b")], ["b"]),
    Row("a condition sees files of the job", [run("touch here"), {"if": "-e here", **run("echo a")}], ["a"]),
    Row(
        "a condition sees variables",
        [{"if": '"$A" == "x y"', **run("echo a")}],
        ["a"],
        fields={"env": variables(A="x y")},
    ),
    Row(
        "a condition sees what steps passed on",
        [run('echo "A=1" >>"$DEEPSQUARE_ENV"'), {"if": "$A -eq 1", **run("echo a")}],
        ["a"],
    ),
    Row(
        "a condition matches patterns",
        [{"if": '"$A" =~ ^b+$', **run("echo a")}],
        ["a"],
        fields={"env": variables(A="bbb")},
    ),
    Row("and and or in a condition", [{"if": "-e no || ( 1 -lt 2 && -n x )", **run("echo a")}], ["a"]),
    Row("a word alone is a condition", [{"if": "$A", **run("echo a")}], ["a"], fields={"env": variables(A="yes")}),
    Row(
        "a condition may end with a word alone",
        [{"if": "-d output && $A \n", **run("echo a")}],
        ["a"],
        fields={"env": variables(A="1")},
    ),
    Row("a condition of two lines", [{"if": "-n a &&\n  ! -e no", **run("echo a")}], ["a"]),
    Row("what is no condition fails the job", [{"if": "1 -eq", **run("echo a")}], [], 2),
    Row("a condition of a loop", [{"if": "-e nothing", **items("a", steps=[ITEM])}, run("echo b")], ["b"]),
    Row("a condition in a loop", [numbers(1, 4, steps=[{"if": "$index -gt 2", **INDEX}])], ["3", "4"]),
    Row(
        "a false condition skips what would follow a failure",
        [{"if": "-e no", "catch": [CAUGHT], "finally": [run("echo f")], **run("exit 1")}],
        [],
    ),
    # ------------------------------------------------------------------ loops
    Row("a loop over items", [items("a", "b c", steps=[ITEM])], ["a", "b c"]),
    Row("items are text", [items("$(echo x)", "*", "", "a'b\"c\\", steps=[ITEM])], ["$(echo x)", "*", "", "a'b\"c\\"]),
    Row("an item may have lines", [items("a\nb", steps=[ITEM])], ["a", "b"]),
    Row("no items", [items(steps=[ITEM]), run("echo end")], ["end"]),
    Row("a loop over a range, its end included", [numbers(1, 3, steps=[INDEX])], ["1", "2", "3"]),
    Row("a range by twos", [numbers(0, 5, 2, steps=[INDEX])], ["0", "2", "4"]),
    Row("a range downwards", [numbers(2, -1, -1, steps=[INDEX])], ["2", "1", "0", "-1"]),
    Row("an empty range", [numbers(3, 1, steps=[INDEX]), run("echo end")], ["end"]),
    Row("a range of one", [numbers(7, 7, 5, steps=[INDEX])], ["7"]),
    Row(
        "a failing turn ends the loop",
        [numbers(1, 3, steps=[INDEX, run('[ "$index" != 2 ] || exit 9')])],
        ["1", "2"],
        9,
    ),
    Row(
        "loops in loops",
        [items("a", "b", steps=[numbers(1, 2, steps=[run('echo "$item$index"')])])],
        ["a1", "a2", "b1", "b2"],
    ),
    Row("an inner item hides the outer one", [items("a", steps=[items("b", steps=[ITEM]), ITEM])], ["b", "a"]),
    Row("an item is gone after its loop", [items("a", steps=[ITEM]), run('echo "${item-gone}"')], ["a", "gone"]),
    Row(
        "an item is stronger than the job's variable",
        [items("a", steps=[ITEM]), ITEM],
        ["a", "of the job"],
        fields={"env": variables(item="of the job")},
    ),
    Row(
        "a step's variable is stronger than an item",
        [items("a", steps=[run("echo $item", env=variables(item="b"))])],
        ["b"],
    ),
    Row("turns side by side", [items("a", "b", parallel=True, steps=[ITEM])], ["a", "b"], tasks=2, in_any_order=True),
    Row(
        "turns wait for each other",
        [
            items(
                *("a", "b"),
                parallel=True,
                steps=[run('touch "$item"; until [ -e a ] && [ -e b ]; do sleep 0.1; done'), ITEM],
            )
        ],
        ["a", "b"],
        tasks=2,
        in_any_order=True,
    ),
    Row(
        "a failing branch fails the step with its code, and the others end",
        [numbers(1, 2, parallel=True, steps=[run('[ "$index" != 1 ] || exit 6; sleep 0.5'), INDEX]), run("echo never")],
        ["2"],
        6,
        tasks=2,
    ),
    Row(
        "no more turns at a time than tasks",
        [
            numbers(
                *(1, 12),
                parallel=True,
                steps=[
                    run('mkdir "$index"; ls -d [0-9]* 2>/dev/null | wc -l >"seen$index"; sleep 0.1; rmdir "$index"')
                ],
            ),
            run('cat seen* | sort -n | tail -n 1 | sed "s/^ *//"; ls seen* | wc -l | sed "s/^ *//"'),
        ],
        ["2", "12"],
        tasks=2,
    ),
    Row(
        "loops side by side in loops side by side",
        [items("a", "b", parallel=True, steps=[numbers(1, 2, parallel=True, steps=[run('echo "$item$index"')])])],
        ["a1", "a2", "b1", "b2"],
        tasks=2,
        in_any_order=True,
    ),
    Row(
        "what branches change of their files stays",
        [numbers(1, 2, parallel=True, steps=[run('echo "$index" >"$index"')]), run("cat 1 2")],
        ["1", "2"],
        tasks=2,
    ),
    # ------------------------------------------------------------------ failures
    Row("a failure that is caught is none", [{"catch": [CAUGHT], **run("exit 5")}, run("echo b")], ["caught 5", "b"]),
    Row("nothing to catch", [{"catch": [CAUGHT], **run("echo a")}], ["a"]),
    Row("a failing catch fails", [{"catch": [CAUGHT, run("exit 6")], **run("exit 5")}], ["caught 5"], 6),
    Row(
        "the code is gone after the catch",
        [{"catch": [CAUGHT], **run("exit 5")}, run('echo "${DEEPSQUARE_ERROR_CODE-gone}"')],
        ["caught 5", "gone"],
    ),
    Row(
        "what is caught first",
        [{"catch": [run("echo outer")], "steps": [{"catch": [CAUGHT], **run("exit 5")}]}],
        ["caught 5"],
    ),
    Row(
        "what an inner catch does not catch",
        [{"catch": [CAUGHT], "steps": [{"catch": [run("exit 7")], **run("exit 5")}]}],
        ["caught 7"],
    ),
    Row(
        "the rest of caught steps is left out",
        [{"catch": [CAUGHT], "steps": [run("exit 5"), run("echo b")]}],
        ["caught 5"],
    ),
    Row(
        "a catch of a loop",
        [{"catch": [CAUGHT], **numbers(1, 3, steps=[INDEX, run("[ $index != 2 ]")])}],
        ["1", "2", "caught 1"],
    ),
    Row(
        "a catch in a loop",
        [numbers(1, 2, steps=[{"catch": [run('echo "$index: $DEEPSQUARE_ERROR_CODE"')], **run("exit $index")}])],
        ["1: 1", "2: 2"],
    ),
    Row("finally after success", [{"finally": [run("echo f")], **run("echo a")}, run("echo b")], ["a", "f", "b"]),
    Row(
        "finally after a failure, whose code stays",
        [{"finally": [run("echo f")], **run("exit 8")}, run("echo b")],
        ["f"],
        8,
    ),
    Row("a failing finally fails", [{"finally": [run("exit 9")], **run("echo a")}, run("echo b")], ["a"], 9),
    Row("the first failure has the code", [{"finally": [run("exit 9")], **run("exit 8")}], [], 8),
    Row("catch, then finally", [{"catch": [CAUGHT], "finally": [run("echo f")], **run("exit 5")}], ["caught 5", "f"]),
    Row(
        "finally of inner and outer steps",
        [{"finally": [run("echo outer")], "steps": [{"finally": [run("echo inner")], **run("exit 3")}]}],
        ["inner", "outer"],
        3,
    ),
    Row(
        "finally after a failing catch",
        [{"catch": [run("exit 6")], "finally": [run("echo f")], **run("exit 5")}],
        ["f"],
        6,
    ),
    # ------------------------------------------------------------------ beside
    Row(
        "what is launched runs beside",
        [
            launch(run("until [ -e go ]; do sleep 0.1; done; echo beside"), handle="a"),
            run("touch go"),
            {"dependsOn": ["a"]},
            run("echo end"),
        ],
        ["beside", "end"],
        tasks=2,
    ),
    Row(
        "handles know no case",
        [launch(run("echo a"), handle="Job_1"), {"dependsOn": ["jOB_1"], **run("echo b")}],
        ["a", "b"],
        tasks=2,
    ),
    Row(
        "a failure that is waited for",
        [launch(run("exit 4"), handle="a"), {"dependsOn": ["a"], **run("echo b")}],
        [],
        4,
        tasks=2,
    ),
    Row(
        "a failure that nobody waits for",
        [{"steps": [launch(run("exit 4")), run("sleep 0.5; echo b")]}, run("echo c")],
        ["b", "c"],
        tasks=2,
    ),
    Row(
        "two wait for the same",
        [
            launch(run("sleep 0.3; echo a"), handle="a"),
            {"dependsOn": ["a"], **run("echo b")},
            {"dependsOn": ["a"], **run("echo c")},
        ],
        ["a", "b", "c"],
        tasks=2,
    ),
    Row(
        "what was not launched is not waited for",
        [{"if": "-e no", **launch(run("echo a"), handle="a")}, {"dependsOn": ["a"], **run("echo b")}],
        ["b"],
        tasks=2,
    ),
    *(
        Row(
            f"the end of the others is told by {name}",
            [{"steps": [launch(run(UNTIL_SIGNALLED.format(name)), signal=number), until_up(name)]}, run("echo end")],
            ["parent", f"got {name}", "end"],
            tasks=2,
        )
        for name, number in (("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15), ("TERM", None))
    ),
    Row(
        "of two tasks the first that fails decides",
        [
            run(
                "[ $SLURM_PROCID = 1 ] || exit 3; trap 'exit 7' TERM; while :; do sleep 0.1; done",
                resources={"tasks": 2},
            )
        ],
        [],
        code=3,
        tasks=2,
    ),
    Row(
        "a task that is killed decides, too",
        [
            run(
                "trap 'exit 5' TERM; echo up >up-$SLURM_PROCID; until [ -e up-0 ] && [ -e up-1 ]; do sleep 0.1; done\n"
                "[ $SLURM_PROCID = 1 ] || kill -s KILL $$; while :; do sleep 0.1; done",
                resources={"tasks": 2},
            )
        ],
        [],
        code=137,
        tasks=2,
    ),
    Row(
        "the end of the others by KILL",
        [{"steps": [launch(run(UNTIL_SIGNALLED.format("TERM")), signal=9), until_up("TERM")]}, run("echo end")],
        ["parent", "end"],
        tasks=2,
    ),
    Row(
        "what is launched may be guarded",
        [
            {"catch": [CAUGHT], "finally": [run("echo f")], **launch(run("sleep 0.5; exit 4"), handle="a")},
            {"dependsOn": ["a"], **run("echo b")},
        ],
        ["caught 4", "f", "b"],
        tasks=2,
    ),
    Row(
        "handles with names alike",
        [
            launch(run("sleep 0.5; echo a"), handle="a"),
            launch(run("echo b"), handle="a_code"),
            {"dependsOn": ["a_code"]},
            {"dependsOn": ["a"], **run("echo end")},
        ],
        ["b", "a", "end"],
        tasks=2,
    ),
    Row(
        "without a signal it is waited for",
        [{"steps": [launch(run("sleep 0.5; echo a"), signal=0), run("echo b")]}, run("echo c")],
        ["b", "a", "c"],
        tasks=2,
    ),
    Row(
        "without a signal its failure counts",
        [{"steps": [launch(run("sleep 0.5; exit 4"), signal=0), run("echo b")]}, run("echo c")],
        ["b"],
        4,
        tasks=2,
    ),
    Row(
        "what is launched tidies up",
        [
            {
                "steps": [
                    launch({"finally": [run("echo tidy")], **run(UNTIL_SIGNALLED.format("TERM"))}, run("echo never")),
                    until_up("TERM"),
                ]
            }
        ],
        ["parent", "got TERM", "tidy"],
        tasks=2,
    ),
    Row(
        "a failure ends what was launched",
        [
            {
                "catch": [CAUGHT],
                "steps": [launch(run(UNTIL_SIGNALLED.format("TERM")), signal=0), until_up("TERM"), run("exit 3")],
            }
        ],
        ["parent", "got TERM", "caught 3"],
        tasks=2,
    ),
    # ------------------------------------------------------------------ variables
    Row("the job's variables", [run('echo "$A"')], ["a b  c'\"$(x)\\"], fields={"env": variables(A="a b  c'\"$(x)\\")}),
    Row(
        "a step's variables are its own",
        [run('echo "$A"', env=variables(A="step")), run('echo "$A"')],
        ["step", "job"],
        fields={"env": variables(A="job")},
    ),
    Row(
        "what is passed on reaches later steps",
        [run('echo "A=x y=z" >>"$DEEPSQUARE_ENV"'), run('echo "$A"')],
        ["x y=z"],
    ),
    Row(
        "what is passed on reaches loops and catches",
        [
            run('echo A=1 >>"$DEEPSQUARE_ENV"'),
            items("a", steps=[run('echo "$item$A"')]),
            {"catch": [run('echo "$A"')], **run("false")},
        ],
        ["a1", "1"],
    ),
    Row(
        "resources are variables",
        [run('echo "$NTASKS $CPUS_PER_TASK $MEM_PER_CPU $GPUS $CPUS $MEM"')],
        ["2 1 50 0 2 100"],
        tasks=2,
    ),
    # ------------------------------------------------------------------ files, shells, tasks
    Row("steps share their scratch", [run("echo a >file"), run("cat file")], ["a"]),
    Row("steps begin in the scratch", [run('[ "$PWD" -ef "$STORAGE_PATH" ] && echo yes')], ["yes"]),
    Row("another folder", [run("pwd", workDir="/usr")], ["/usr"]),
    Row("a folder that is not there fails", [run("pwd", workDir="/no/such/folder")], None, 1),
    Row("sh as the shell", [run('echo "${BASH_VERSINFO-none}"', shell="/bin/sh")], ["none"]),
    Row("several tasks", [run('echo "$SLURM_PROCID"', resources={"tasks": 2})], ["0", "1"], tasks=2, in_any_order=True),
    Row("both outputs, in order", [run("echo a; echo b >&2; echo c")], ["a", "b", "c"]),
    Row("no output", [run("echo a; echo b >&2")], [], fields={"enableLogging": False}),
    Row("nothing on standard input", [run("cat; echo end")], ["end"]),
    Row("a home of the job's own", [run('echo a >"$HOME/file"'), run('cat "$HOME/file"')], ["a"]),
]
"""The table."""
