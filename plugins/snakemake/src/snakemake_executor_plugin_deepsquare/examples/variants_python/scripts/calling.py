"""Find the variants of a sample in its mapped reads."""

import math
import re
from collections import Counter
from itertools import accumulate
from pathlib import Path

from vcf_files import Record, Site

FEWEST_READS = 8
# Of the reads over a position: from here on they tell of a variant, and of one on both copies.
VARIANT, BOTH_COPIES = 0.2, 0.8
ERROR = 0.01  # how often a base that was read is taken to be wrong
HIGHEST_QUALITY = 999


def call_variants(genome: dict[str, str], sam_path: str) -> list[Record]:
    """The variants, in no particular order."""
    depths, differences = pile_up(genome, sam_path)
    records = []
    for site, count in differences.items():
        depth = depths[site.contig][site.position - 1]
        if depth >= FEWEST_READS and count >= VARIANT * depth:
            genotype = "1/1" if count >= BOTH_COPIES * depth else "0/1"
            sample = f"{genotype}:{depth}:{depth - count},{count}"
            records.append(Record(site, quality(genotype, depth, count), [sample]))
    return records


def quality(genotype: str, depth: int, count: int) -> int:
    """How much likelier the reads are with the variant than as mere errors, in tenths of a power of ten."""
    share = 0.5 if genotype == "0/1" else 1 - ERROR
    factor = count * math.log10(share / ERROR) + (depth - count) * math.log10((1 - share) / (1 - ERROR))
    return max(0, min(HIGHEST_QUALITY, round(10 * factor)))


def pile_up(genome: dict[str, str], sam_path: str) -> tuple[dict[str, list[int]], Counter[Site]]:
    """How many reads lie over each position, and in how many there is something else than in the genome."""
    changes = {contig: [0] * (len(bases) + 1) for contig, bases in genome.items()}
    differences: Counter[Site] = Counter()
    with Path(sam_path).open() as sam:
        for line in sam:
            if line.startswith("@"):
                continue
            _, _, contig, position, _, cigar, _, _, _, read, *_ = line.split("\t")
            bases = genome[contig]
            here, done = int(position) - 1, 0  # in the genome and in the read
            for digits, operation in re.findall(r"(\d+)([MID])", cigar):
                length = int(digits)
                if operation == "M":
                    changes[contig][here] += 1
                    changes[contig][here + length] -= 1
                    for place, base in enumerate(read[done : done + length], here):
                        if base != bases[place]:
                            differences[Site(contig, place + 1, bases[place], base)] += 1
                    here, done = here + length, done + length
                elif operation == "I":
                    before = bases[here - 1]
                    differences[Site(contig, here, before, before + read[done : done + length])] += 1
                    done += length
                else:
                    differences[Site(contig, here, bases[here - 1 : here + length], bases[here - 1])] += 1
                    here += length
    return {contig: list(accumulate(steps)) for contig, steps in changes.items()}, differences
