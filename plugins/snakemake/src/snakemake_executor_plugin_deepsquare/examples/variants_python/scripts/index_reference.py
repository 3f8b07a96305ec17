"""Note where in the genome each sequence of K bases is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sequences import read_fasta

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

K = 16  # long enough to be found once in a genome of a few million bases, short enough to fit between two mutations

places: dict[str, tuple[str, int] | None] = {}
for contig, bases in read_fasta(snakemake.input[0]).items():
    for position in range(len(bases) - K + 1):
        kmer = bases[position : position + K]
        # What is in two places tells nothing.
        places[kmer] = None if kmer in places else (contig, position)

unique = {kmer: place for kmer, place in places.items() if place}
Path(snakemake.output[0]).write_text(json.dumps({"k": K, "places": unique}))
