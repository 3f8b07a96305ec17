"""Labels say what is true of every node, in words that customers can ask for, whatever a node answers."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import archspec
import pytest
from deepsquare.chain.types import Label
from deepsquare.grid.supervisor.labels import NodeFacts, detect_labels, own_facts
from hypothesis import given
from hypothesis import strategies as st

# Processors of real machines, whose microarchitecture is the last part of the file's name.
PROCESSORS = Path(archspec.__file__).parent / "json" / "tests" / "targets"


def processor(name: str) -> str:
    text = (PROCESSORS / name).read_text()
    assert ":" in text
    return text


def values(*facts: NodeFacts) -> dict[str, str]:
    labels = detect_labels(facts)
    found = {label.key: label.value for label in labels}
    assert len(found) == len(labels)
    return found


def cpu(model: str) -> NodeFacts:
    return NodeFacts(cpuinfo=f"processor\t: 0\nmodel name\t: {model}\n\nprocessor\t: 1\nmodel name\t: another\n")


def gpu(*gres: str) -> str | None:
    return values(*(NodeFacts(gres=text) for text in gres)).get("gpu")


ZEN3 = NodeFacts("Linux 5.4.0-91-generic", "x86_64", processor("linux-ubuntu20.04-zen3"), "gpu:a100:4(S:0-1)")
SKYLAKE = NodeFacts("Linux 3.10.0", "x86_64", processor("linux-rhel7-skylake_avx512"), "gpu:v100:2")
NEOVERSE = NodeFacts("Linux 6.1.0", "aarch64", processor("linux-amazon-neoverse_n1"), "(null)")


def test_labels_of_a_uniform_cluster() -> None:
    assert detect_labels([ZEN3, ZEN3]) == [
        Label("os", "linux"),
        Label("arch", "x86_64"),
        Label("cpu", "AMD_Ryzen_9_5950X"),
        Label("cpu.microarch", "zen3"),
        Label("gpu", "a100"),
    ]


def test_nodes_that_differ_have_in_common_what_is_true_for_all() -> None:
    assert values(ZEN3, SKYLAKE) == values(SKYLAKE, ZEN3)
    assert values(ZEN3, SKYLAKE) == {
        "os": "linux",
        "arch": "x86_64",
        "cpu": "AMD_Ryzen_9_5950X,Intel_Xeon_Gold_6132",
        "cpu.microarch": "x86_64_v3",
        "gpu": "a100,v100",
    }


def test_nodes_of_two_architectures_share_no_programs() -> None:
    found = values(ZEN3, NEOVERSE)
    assert "arch" not in found
    assert "cpu.microarch" not in found
    assert found["os"] == "linux"


def test_what_one_node_does_not_tell_is_said_of_none() -> None:
    assert values(ZEN3, NodeFacts(os="Linux 5.4")) == {"os": "linux", "gpu": "a100"}


def test_no_nodes_have_no_labels() -> None:
    assert detect_labels([]) == []
    assert detect_labels([NodeFacts()]) == []


def known_processors() -> list[tuple[str, str, str]]:
    from archspec.cpu import TARGETS

    found = []
    for path in sorted(PROCESSORS.glob("linux-*")):
        name = path.name.split("-", 2)[2]
        family = TARGETS[name].family.name
        if family in ("x86_64", "aarch64"):
            found.append((path.name, family, name))
    return found


def test_there_are_processors_to_try() -> None:
    assert len(known_processors()) > 20


@pytest.mark.parametrize(("file", "machine", "name"), known_processors())
def test_a_processor_is_known_by_its_text_on_whatever_machine(file: str, machine: str, name: str) -> None:
    assert values(NodeFacts(machine=machine, cpuinfo=processor(file)))["cpu.microarch"] == name


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="archspec is asked about this machine's /proc/cpuinfo, of x86_64 or aarch64",
)
def test_this_machine_is_what_archspec_takes_it_for() -> None:
    from archspec.cpu import host

    found = values(own_facts())
    assert found["cpu.microarch"] == host().name
    assert found["os"] == "linux"
    assert found["arch"] == platform.machine()


def test_without_proc_there_are_fewer_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert values(own_facts(tmp_path / "cpuinfo")) == {"os": "darwin", "arch": "aarch64"}


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("AMD EPYC 7742 64-Core Processor", "AMD_EPYC_7742"),
        ("AMD EPYC 9654 96-Core Processor                ", "AMD_EPYC_9654"),
        ("Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz", "Intel_Xeon_Gold_6248"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel_Xeon_E5-2680_v4"),
        ("Intel Xeon Processor (Skylake, IBRS)", "Intel_Xeon_Skylake_IBRS"),
        ("12th Gen Intel(R) Core(TM) i9-12900K", "12th_Gen_Intel_Core_i9-12900K"),
        ("AMD Ryzen 7 PRO 4750U with Radeon Graphics", "AMD_Ryzen_7_PRO_4750U"),
        ("AMD FX(tm)-8350 Eight-Core Processor", "AMD_FX-8350"),
        ("AMD EPYC™ 7742", "AMD_EPYC_7742"),
        ("$(reboot); <b>'\"`\x1b[31m", "reboot_b_31m"),
        ("Processor", None),
        ("M" * 64, "M" * 64),
        ("M" * 65, None),
    ],
)
def test_the_model_without_what_says_nothing(model: str, label: str | None) -> None:
    assert values(cpu(model)).get("cpu") == label


def test_models_that_do_not_fit_are_counted() -> None:
    models = [f"Intel Xeon Platinum {number}" for number in range(8100, 8105)]
    assert values(*map(cpu, models))["cpu"] == "Intel_Xeon_Platinum_8100,Intel_Xeon_Platinum_8101,+3"


@pytest.mark.parametrize(
    ("gres", "label"),
    [
        (["gpu:a100:4(S:0-1)"], "a100"),
        (["gpu:NVIDIA_A100-SXM4-40GB:8(S:0,2),shard:8"], "nvidia_a100-sxm4-40gb"),
        (["shard:a100:8,gpu:a100_1g.5gb:7"], "a100_1g.5gb"),
        (["gpu:v100:2(S:0),gpu:a100:2(S:1)"], "a100,v100"),
        (["gpu:a100:4", "(null)", ""], "a100"),
        (["gpu:1080:2"], "1080"),
        (["gpu:a100:no_consume:4"], "a100"),
        (["gpu:a100"], "a100"),
        (["gpu:a100:0"], None),
        # Who asks for an a100 must not get a GPU that nobody has named.
        (["gpu:a100:4", "gpu:2"], None),
        (["gpu"], None),
        (["gpu:no_consume:4"], None),
        (["gpu:a 100:4"], None),
        (["gpu:" + "x" * 65 + ":4"], None),
        (["gpumem:80G"], None),
    ],
)
def test_types_of_gpus(gres: list[str], label: str | None) -> None:
    assert gpu(*gres) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [("Linux 5.10.0 #1 SMP", "linux"), ("Darwin 24.1.0", "darwin"), ("linux", "linux"), ("5.10", None), ("", None)],
)
def test_operating_systems(text: str, label: str | None) -> None:
    assert values(NodeFacts(os=text)).get("os") == label


SIGNS = "gpu : , ( ) a100 4 no_consume flags Features vendor_id AuthenticAMD CPU 0x41 fpu sse sse2 avx Linux x86_64 aarch64 é"
words = st.sampled_from([*SIGNS.split(), "\n", "\t: ", " ", "\0", "model name", "CPU part", "CPU implementer"])
texts = st.text(max_size=60) | st.lists(words, max_size=30).map("".join)
machines = st.sampled_from(["x86_64", "aarch64", "arm64"]) | texts
nodes = st.builds(NodeFacts, os=texts, machine=machines, cpuinfo=texts, gres=texts)


@given(st.lists(nodes, max_size=4))
def test_whatever_nodes_answer_labels_are_plain_and_short(facts: list[NodeFacts]) -> None:
    labels = detect_labels(facts)
    assert labels == detect_labels(facts[::-1])
    assert len({label.key for label in labels}) == len(labels)
    for label in labels:
        assert 0 < len(label.value.encode("ascii")) <= 64
        assert label.value.isprintable()
        assert not set(label.value) & set(" '\"`$;&|<>(){}*?!\\=")


def test_importing_reads_no_tables() -> None:
    program = "import sys; import deepsquare.grid.supervisor.labels; assert 'archspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
