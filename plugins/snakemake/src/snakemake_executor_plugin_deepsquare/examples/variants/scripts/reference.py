"""Make a genome of random bases, the same for the same seed."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LINE = 60

generator = random.Random(snakemake.params.seed)
lines = []
for name, length in snakemake.params.contigs.items():
    bases = "".join(generator.choices("ACGT", k=length))
    lines += [f">{name}", *(bases[start : start + LINE] for start in range(0, length, LINE))]
Path(snakemake.output[0]).write_text("\n".join(lines) + "\n")
