"""Make up a sample: mutate the genome, and read pairs of ends from pieces of its two copies, the same for the same seed."""

import csv
import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sequences import Read, read_fasta, reverse_complement, write_fastq

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

READ, PIECE, PIECE_DEVIATION = 100, 300, 30
DISTANCE, MORE_DISTANCE = 50, 400  # between mutations: at least, and on average in addition
KINDS = {"SNV": 8, "insertion": 1, "deletion": 1}  # and how often they are
LONGEST = 4  # insertion or deletion
GENOTYPES = ["0/1", "1/0", "1/1"]  # on which of the two copies
ERRORS = 0.005
OTHERS = {base: "ACGT".replace(base, "") for base in "ACGT"}

generator = random.Random(snakemake.params.seed)


class Mutation(NamedTuple):
    position: int  # from 0
    reference: str
    alternative: str
    genotype: str


def mutation(bases: str, position: int) -> Mutation:
    """A random one, at the first of the places where it means the same: that is how variants are named."""
    kind = generator.choices(list(KINDS), list(KINDS.values()))[0]
    length = generator.randint(1, LONGEST)
    old = new = bases[position]
    if kind == "SNV":
        new = generator.choice(OTHERS[old])
    elif kind == "insertion":
        new += "".join(generator.choices("ACGT", k=length))
    else:
        old = bases[position : position + 1 + length]
    while old[-1] == new[-1]:
        position -= 1
        old, new = bases[position] + old[:-1], bases[position] + new[:-1]
    return Mutation(position, old, new, generator.choice(GENOTYPES))


def mutations(bases: str) -> list[Mutation]:
    """Random ones, far enough from each other and from the ends to be told apart."""
    found = []
    position = READ
    while (position := position + int(generator.expovariate(1 / MORE_DISTANCE))) < len(bases) - READ:
        found.append(mutation(bases, position))
        position += DISTANCE
    return found


def mutate(bases: str, changes: list[Mutation]) -> str:
    """The bases with the changes, which are in order."""
    pieces = []
    done = 0
    for change in changes:
        pieces += [bases[done : change.position], change.alternative]
        done = change.position + len(change.reference)
    return "".join([*pieces, bases[done:]])


def read(name: str, piece: str) -> Read:
    """What a machine that is equally sure of every base makes of the beginning of a piece."""
    bases = [generator.choice(OTHERS[base]) if generator.random() < ERRORS else base for base in piece[:READ]]
    return Read(name, "".join(bases), "I" * READ)


genome = read_fasta(snakemake.input[0])
truth = {contig: mutations(bases) for contig, bases in genome.items()}
copies = {
    contig: [mutate(bases, [m for m in truth[contig] if m.genotype.split("/")[copy] == "1"]) for copy in (0, 1)]
    for contig, bases in genome.items()
}

forward, backward = [], []
lengths = [len(bases) for bases in genome.values()]
for number, contig in enumerate(generator.choices(list(genome), lengths, k=snakemake.params.pairs), 1):
    copy = generator.choice(copies[contig])
    length = min(len(copy), max(READ, round(generator.gauss(PIECE, PIECE_DEVIATION))))
    start = generator.randint(0, len(copy) - length)
    piece = copy[start : start + length]
    ends = [piece, reverse_complement(piece)]
    generator.shuffle(ends)
    forward.append(read(f"pair{number}", ends[0]))
    backward.append(read(f"pair{number}", ends[1]))

write_fastq(snakemake.output.forward, forward)
write_fastq(snakemake.output.backward, backward)
with Path(snakemake.output.truth).open("w", newline="") as output:
    table = csv.writer(output, delimiter="\t", lineterminator="\n")
    table.writerow(["contig", "position", "reference", "alternative", "genotype"])
    for contig, changes in truth.items():
        for position, old, new, genotype in changes:
            table.writerow([contig, position + 1, old, new, "0/1" if genotype == "1/0" else genotype])
