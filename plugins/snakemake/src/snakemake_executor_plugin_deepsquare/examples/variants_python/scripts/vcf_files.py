"""The files of variants: VCF 4.2, packed."""

import gzip
from pathlib import Path
from typing import NamedTuple

FIXED = ["CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
NO_CALL = "./."
FORMATS = {
    "GT": 'Number=1,Type=String,Description="Genotype"',
    "DP": 'Number=1,Type=Integer,Description="Reads over the position"',
    "AD": 'Number=R,Type=Integer,Description="Reads with the bases of the reference, and with the alternative"',
}


class Site(NamedTuple):
    """What a variant puts in place of what; the position counts from 1."""

    contig: str
    position: int
    reference: str
    alternative: str

    @property
    def kind(self) -> str:
        change = len(self.alternative) - len(self.reference)
        if change == 0:
            return "SNV"
        return "insertion" if change > 0 else "deletion"


class Record(NamedTuple):
    """A variant, and what each sample has there: its genotype and more, as in `FORMATS`."""

    site: Site
    quality: int
    samples: list[str]

    def line(self) -> str:
        contig, position, reference, alternative = self.site
        fixed = [contig, position, ".", reference, alternative, self.quality, "PASS", ".", ":".join(FORMATS)]
        return "\t".join(map(str, [*fixed, *self.samples]))


def write_vcf(path: str, contigs: dict[str, int], samples: list[str], records: list[Record]) -> None:
    """Write records of contigs of these lengths, sorted."""
    order = {contig: number for number, contig in enumerate(contigs)}
    lines = [
        "##fileformat=VCFv4.2",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        *(f"##contig=<ID={contig},length={length}>" for contig, length in contigs.items()),
        *(f"##FORMAT=<ID={name},{description}>" for name, description in FORMATS.items()),
        "#" + "\t".join([*FIXED, *samples]),
        *(record.line() for record in sorted(records, key=lambda record: (order[record.site.contig], record.site))),
    ]
    # Neither a name nor a time in the file's head: the same records give the same bytes.
    with Path(path).open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write("\n".join([*lines, ""]).encode())


def read_vcf(path: str) -> tuple[list[str], list[Record]]:
    """The names of the samples, and the records."""
    names, records = [], []
    with gzip.open(path, "rt") as vcf:
        for line in vcf:
            fields = line.rstrip("\n").split("\t")
            if line.startswith("#CHROM"):
                names = fields[len(FIXED) :]
            elif not line.startswith("#"):
                contig, position, _, reference, alternative, quality = fields[:6]
                site = Site(contig, int(position), reference, alternative)
                records.append(Record(site, int(quality), fields[len(FIXED) :]))
    return names, records
