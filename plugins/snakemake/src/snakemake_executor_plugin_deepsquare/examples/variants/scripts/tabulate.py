"""Turn a VCF of several samples into a table: a line a variant, a column a sample."""

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FIXED = 9  # the columns of a VCF before its samples


def kind_of(reference: str, alternatives: list[str]) -> str:
    """SNV, insertion or deletion, by the first alternative: the others are at the same place."""
    change = len(alternatives[0]) - len(reference)
    if change == 0:
        return "SNV"
    return "insertion" if change > 0 else "deletion"


with gzip.open(snakemake.input[0], "rt") as vcf, Path(snakemake.output[0]).open("w", newline="") as output:
    table = csv.writer(output, delimiter="\t", lineterminator="\n")
    for line in vcf:
        if line.startswith("##"):
            continue
        fields = line.rstrip("\n").split("\t")
        if line.startswith("#"):
            table.writerow(["contig", "position", "reference", "alternative", "kind", "quality", *fields[FIXED:]])
            continue
        contig, position, _, reference, alternative, quality = fields[:6]
        genotypes = [sample.split(":")[0] for sample in fields[FIXED:]]
        kind = kind_of(reference, alternative.split(","))
        table.writerow([contig, position, reference, alternative, kind, quality, *genotypes])
