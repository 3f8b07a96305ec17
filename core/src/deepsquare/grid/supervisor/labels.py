"""The labels of a provider, from facts about its nodes.

The keys are those of DeepSquare's own supervisor, so that a customer's demand means the same at every provider. A job may come
to any node, so a label is given only when it is true for all of them:

| key | value | on nodes that differ |
|---|---|---|
| `os` | `linux` | no label |
| `arch` | the machine as `uname -m` has it on Linux: `x86_64`, `aarch64` | no label |
| `cpu` | the model: `AMD_EPYC_7742`, `Intel_Xeon_Gold_6248` | all of them, joined by commas |
| `cpu.microarch` | archspec's name: `zen3`, `skylake_avx512`, `neoverse_n1` | the newest that all can run: `x86_64_v3` |
| `gpu` | Slurm's type, in lower case: `a100` | all of them, joined by commas |

Of values that are joined, `in` (contains) finds one, and `==` finds none: nobody who insists on a model gets another.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from deepsquare.chain.types import Label

if TYPE_CHECKING:
    from archspec.cpu import Microarchitecture

_LONGEST_VALUE = 64
# All that is looked at is in the first processor's lines, of about two kilobytes. A host may send anything.
_MOST_CPUINFO_CHARS = 64 << 10

_WORD = re.compile(r"[a-z][a-z0-9_]*")
# One name for one architecture: macOS and the BSDs have their own.
_SAME_MACHINE = {"arm64": "aarch64", "amd64": "x86_64"}

# What model names have beside the model: trade marks, frequency, number of cores, a graphics unit, words that say nothing.
_NOISE = re.compile(
    r"\((?:r|tm|c)\)|[®™©]|@.*|\bw(?:ith|/) radeon.*|\b(?:\d+|[a-z]+)-core\b|\b(?:processors?|cpu)\b", re.IGNORECASE
)
# A comma joins values, and spaces and quotes need care in shells.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9.+_-]+")

# The sockets or cores of a gres, such as (S:0-1) or (S:0,2): they may hold the commas that elsewhere part entries.
_PARENTHESES = re.compile(r"\([^()]*\)")
_GPU_TYPE = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_COUNT = re.compile(r"[0-9]+[kmgtp]?")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is known of a node, as it was told; what is empty or not understood makes no label."""

    os: str = ""
    """As `uname -sr` prints it, or what follows `OS=` in `scontrol show node`: `Linux 5.10.0-28-amd64 #1 SMP ...`."""
    machine: str = ""
    """As `uname -m` prints it, or what follows `Arch=` in `scontrol show node`."""
    cpuinfo: str = ""
    """The text of `/proc/cpuinfo`, at least the lines of the first processor."""
    gres: str = ""
    """As `sinfo --Format=Gres` or `scontrol show node` prints it: `gpu:a100:4(S:0-1),shard:8`, or `(null)`."""


def own_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> NodeFacts:
    """The facts about this machine, without GPUs; where there is no `/proc` (macOS), without the processor.

    Args:
        cpuinfo: the kernel's description of the processors.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return NodeFacts(os=f"{platform.system()} {platform.release()}", machine=platform.machine(), cpuinfo=text)


def detect_labels(facts: Sequence[NodeFacts]) -> list[Label]:
    """The labels of a provider with these nodes, each key at most once, in the order of the module's table.

    Text that is not understood raises nothing: the labels that depend on it are left out, also when it is one node's only. A
    value has at most 64 bytes of ASCII, none of them blank; of joined names those that don't fit are counted: `a100,h100,+2`.

    Args:
        facts: one for each node that jobs may come to; of no nodes there are no labels.
    """
    processors = [_first_processor(node.cpuinfo) for node in facts]
    machines = [_machine(node.machine) for node in facts]
    values = {
        "os": _common([_first_word(node.os) for node in facts]),
        "arch": _common(machines),
        "cpu": _joined([_model(processor) for processor in processors]),
        "cpu.microarch": _newest_common(list(zip(machines, processors, strict=True))),
        "gpu": _joined([name for node in facts for name in _gpu_types(node.gres)]),
    }
    return [Label(key, value) for key, value in values.items() if value and len(value) <= _LONGEST_VALUE]


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else ""


def _joined(names: Sequence[str]) -> str:
    """The names, sorted, as many as there is room for; nothing if one is missing or too long by itself."""
    distinct = sorted(set(names))
    if not all(0 < len(name) <= _LONGEST_VALUE for name in distinct):
        return ""
    for left_out in range(len(distinct)):
        kept = distinct[: len(distinct) - left_out]
        value = ",".join([*kept, f"+{left_out}"] if left_out else kept)
        if len(value) <= _LONGEST_VALUE:
            return value
    return ""


def _first_word(text: str) -> str:
    word = text[: _LONGEST_VALUE * 2].strip().partition(" ")[0].lower()
    return word if _WORD.fullmatch(word) else ""


def _machine(text: str) -> str:
    word = _first_word(text)
    return _SAME_MACHINE.get(word, word)


def _first_processor(cpuinfo: str) -> dict[str, str]:
    """The fields of the first processor: lines of `key : value`, up to a blank one (proc_cpuinfo(5))."""
    fields: dict[str, str] = {}
    for line in cpuinfo[:_MOST_CPUINFO_CHARS].splitlines():
        key, colon, value = line.partition(":")
        if not colon and fields:
            break
        fields[key.strip()] = value.strip()
    return fields


def _model(processor: dict[str, str]) -> str:
    # The processor itself has 48 bytes for its name; Arm's has none.
    words = _NOISE.sub("", processor.get("model name", "")[:200])
    return _NOT_PLAIN.sub("_", words).strip("_.-")


def _gpu_types(gres: str) -> list[str]:
    """The types of a node's GPUs, from entries `name[:type][:no_consume]:count` (slurm.conf's Gres); "" for one without a type."""
    types = []
    for entry in _PARENTHESES.sub("", gres.lower()).split(","):
        name, *rest = (part.strip() for part in entry.split(":"))
        if name != "gpu":
            continue
        count = rest.pop() if rest and _COUNT.fullmatch(rest[-1]) else "1"
        if count.strip("0"):
            kind = next((part for part in rest if part != "no_consume"), "")
            types.append(kind if _GPU_TYPE.fullmatch(kind) else "")
    return types


# ------------------------------------------------------------------ microarchitectures


def _newest_common(nodes: Iterable[tuple[str, dict[str, str]]]) -> str:
    found = [_microarchitecture(machine, processor) for machine, processor in nodes]
    known = [target for target in found if target is not None]
    if not known or len(known) != len(found):
        return ""
    common = reduce(set.intersection, ({target, *target.ancestors} for target in known))
    return max(common, key=_newness).name if common else ""


def _newness(target: Microarchitecture) -> tuple[int, int, str]:
    return len(target.ancestors), len(target.features), target.name


def _microarchitecture(machine: str, processor: dict[str, str]) -> Microarchitecture | None:
    """The newest one that a processor can run, by the rules of `archspec.cpu.host`, which knows its own machine only."""
    # Reading archspec's tables takes longer than all else here.
    from archspec.cpu import TARGETS, Microarchitecture
    from archspec.cpu.schema import TARGETS_JSON

    part = ""
    if machine == "x86_64" and "flags" in processor:
        vendor, flags = processor.get("vendor_id", ""), processor["flags"]
    elif machine == "aarch64" and "Features" in processor:
        implementer = processor.get("CPU implementer", "")
        vendor = TARGETS_JSON["conversions"]["arm_vendors"].get(implementer, implementer)
        flags, part = processor["Features"], processor.get("CPU part", "")
    else:
        return None
    # It completes the features: Linux leaves out some that others imply.
    features = Microarchitecture("", [], vendor, set(flags.split()), {}).features
    able: list[Microarchitecture] = [
        target
        for target in TARGETS.values()
        if target.family.name == machine
        and target.vendor in (vendor, "generic")
        # Nothing in Arm's features tells the generic levels apart.
        and (machine != "aarch64" or target.vendor != "generic" or target.name == machine)
        and target.features <= features
    ]
    generics = [target for target in able if target.vendor == "generic"]
    if not generics:
        return None
    best_generic = max(generics, key=_newness)
    if part and any(target.cpu_part == part for target in able):
        able = [target for target in able if target.cpu_part == part]
    # A vendor's old model is no better than the generic level, should a rare feature be switched off in the firmware.
    newer = [target for target in able if target > best_generic]
    return max(newer, key=_newness) if newer else best_generic
