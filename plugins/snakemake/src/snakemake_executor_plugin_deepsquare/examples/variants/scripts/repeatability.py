"""Call the variants of one sample again and again, and check that each round gives the same records."""

import hashlib
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def call_variants(genome: str, bam: str) -> tuple[str, int]:
    """The digest and the number of the records."""
    pileup = subprocess.Popen(
        ["bcftools", "mpileup", "--no-version", "--fasta-ref", genome, bam],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    calls = subprocess.run(
        ["bcftools", "call", "--no-version", "--multiallelic-caller", "--variants-only"],
        stdin=pileup.stdout,
        stdout=subprocess.PIPE,
        check=True,
    )
    if pileup.wait() != 0:
        raise SystemExit(f"bcftools mpileup ended with {pileup.returncode}")
    records = [line for line in calls.stdout.splitlines() if not line.startswith(b"#")]
    return hashlib.sha256(b"\n".join(records)).hexdigest(), len(records)


end = time.monotonic() + snakemake.params.seconds
first, number = call_variants(snakemake.input.genome, snakemake.input.bam)
rounds = 1
while rounds == 1 or time.monotonic() < end:
    again, _ = call_variants(snakemake.input.genome, snakemake.input.bam)
    rounds += 1
    if again != first:
        raise SystemExit(f"round {rounds} gave other records than the first")

Path(snakemake.output[0]).write_text(f"{rounds} rounds gave the same {number} records\n")
