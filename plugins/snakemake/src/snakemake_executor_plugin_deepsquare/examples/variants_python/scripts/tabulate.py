"""Turn a VCF of several samples into a table: a line a variant, a column a sample."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from vcf_files import read_vcf

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

samples, records = read_vcf(snakemake.input[0])
with Path(snakemake.output[0]).open("w", newline="") as output:
    table = csv.writer(output, delimiter="\t", lineterminator="\n")
    table.writerow(["contig", "position", "reference", "alternative", "kind", "quality", *samples])
    for record in records:
        genotypes = [sample.split(":")[0] for sample in record.samples]
        table.writerow([*record.site, record.site.kind, record.quality, *genotypes])
