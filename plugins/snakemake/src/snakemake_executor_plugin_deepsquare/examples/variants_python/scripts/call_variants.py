"""Call the variants of a sample."""

from typing import TYPE_CHECKING

from calling import call_variants
from sequences import read_fasta
from vcf_files import write_vcf

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

genome = read_fasta(snakemake.input.genome)
lengths = {contig: len(bases) for contig, bases in genome.items()}
records = call_variants(genome, snakemake.input.sam)
write_vcf(snakemake.output[0], lengths, [snakemake.wildcards.sample], records)
