"""Put the variants of all samples into one VCF, in which a sample without a call at a site has none."""

from typing import TYPE_CHECKING

from vcf_files import NO_CALL, Record, read_vcf, write_vcf

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

calls = {}
for path in snakemake.input:
    (sample,), records = read_vcf(path)
    calls[sample] = {record.site: record for record in records}

merged = []
for site in set().union(*calls.values()):
    found = {sample: records[site] for sample, records in calls.items() if site in records}
    quality = max(record.quality for record in found.values())
    merged.append(Record(site, quality, [found[s].samples[0] if s in found else NO_CALL for s in calls]))
write_vcf(snakemake.output[0], snakemake.params.contigs, list(calls), merged)
