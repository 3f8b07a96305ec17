"""Make a genome of random bases, the same for the same seed."""

import random
from typing import TYPE_CHECKING

from sequences import write_fasta

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

generator = random.Random(snakemake.params.seed)
contigs = {name: "".join(generator.choices("ACGT", k=length)) for name, length in snakemake.params.contigs.items()}
write_fasta(snakemake.output[0], contigs)
