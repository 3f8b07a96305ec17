"""Sequences of bases and their files."""

from pathlib import Path
from typing import NamedTuple

LINE = 60
COMPLEMENTS = str.maketrans("ACGT", "TGCA")


class Read(NamedTuple):
    name: str
    bases: str
    qualities: str


def reverse_complement(bases: str) -> str:
    """The other strand."""
    return bases.translate(COMPLEMENTS)[::-1]


def write_fasta(path: str, contigs: dict[str, str]) -> None:
    lines = []
    for name, bases in contigs.items():
        lines += [f">{name}", *(bases[start : start + LINE] for start in range(0, len(bases), LINE))]
    Path(path).write_text("\n".join(lines) + "\n")


def read_fasta(path: str) -> dict[str, str]:
    """The bases of each contig, in the order of the file."""
    contigs = {}
    for entry in Path(path).read_text().split(">")[1:]:
        name, *lines = entry.split()
        contigs[name] = "".join(lines)
    return contigs


def write_fastq(path: str, reads: list[Read]) -> None:
    Path(path).write_text("".join(f"@{name}\n{bases}\n+\n{qualities}\n" for name, bases, qualities in reads))


def read_fastq(path: str) -> list[Read]:
    lines = Path(path).read_text().splitlines()
    names = [line.removeprefix("@") for line in lines[0::4]]
    return list(map(Read, names, lines[1::4], lines[3::4]))
