"""Map the reads of a sample to the genome, with as many processes as the job has threads, into a sorted SAM."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mapping import Mapper, Place
from sequences import Read, read_fasta, read_fastq, reverse_complement

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

PAIRED, PROPER, REVERSE, MATE_REVERSE, FIRST, LAST = 0x1, 0x2, 0x10, 0x20, 0x40, 0x80
SURE = 60  # the quality of a place that is the only one


def place_all(mapper: Mapper, pairs: list[tuple[str, str]], processes: int) -> list[tuple[Place, Place] | None]:
    """Where each pair belongs, in their order, however many processes look."""
    share = -(-len(pairs) // processes)
    shares = [pairs[start : start + share] for start in range(0, len(pairs), share)]
    with ProcessPoolExecutor(processes) as pool:
        return list(chain.from_iterable(pool.map(mapper.place_pairs, shares)))


def sam_fields(read: Read, place: Place, mate: Place, which: int) -> list[str | int]:
    flags = PAIRED | PROPER | which
    bases, qualities = read.bases, read.qualities
    length = max(place.end, mate.end) - min(place.start, mate.start)
    if mate.is_reverse:
        flags |= MATE_REVERSE
    if place.is_reverse:
        flags |= REVERSE
        bases, qualities = reverse_complement(bases), qualities[::-1]
        length = -length
    position, mate_position = place.start + 1, mate.start + 1
    return [read.name, flags, place.contig, position, SURE, place.cigar, "=", mate_position, length, bases, qualities]


def main() -> None:
    genome = read_fasta(snakemake.input.genome)
    index = json.loads(Path(snakemake.input.index).read_text())
    mapper = Mapper(genome, index["k"], index["places"])
    pairs = list(zip(read_fastq(snakemake.input.forward), read_fastq(snakemake.input.backward), strict=True))
    places = place_all(mapper, [(forward.bases, backward.bases) for forward, backward in pairs], snakemake.threads)

    rows = []
    for (forward, backward), found in zip(pairs, places, strict=True):
        if found:
            one, other = found
            rows += [sam_fields(forward, one, other, FIRST), sam_fields(backward, other, one, LAST)]
    print(f"{len(rows) // 2} of {len(pairs)} pairs belong somewhere", file=sys.stderr)

    order = {contig: number for number, contig in enumerate(genome)}
    rows.sort(key=lambda row: (order[row[2]], row[3], row[0], row[1]))
    header = [["@HD", "VN:1.6", "SO:coordinate"]]
    header += [["@SQ", f"SN:{contig}", f"LN:{len(bases)}"] for contig, bases in genome.items()]
    with Path(snakemake.output[0]).open("w") as sam:
        sam.writelines("\t".join(map(str, row)) + "\n" for row in [*header, *rows])


# The processes of the pool may load this file, too.
if __name__ == "__main__":
    main()
