"""Call the variants of one sample again and again, and check that each round gives the same records."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from calling import call_variants
from sequences import read_fasta

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

end = time.monotonic() + snakemake.params.seconds
genome = read_fasta(snakemake.input.genome)
first = call_variants(genome, snakemake.input.sam)
rounds = 1
while rounds == 1 or time.monotonic() < end:
    rounds += 1
    if call_variants(genome, snakemake.input.sam) != first:
        raise SystemExit(f"round {rounds} gave other records than the first")

Path(snakemake.output[0]).write_text(f"{rounds} rounds gave the same {len(first)} records\n")
