"""Plot where each sample has variants, and of which kind."""

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "variants"  # without it, the ids in an SVG differ from run to run
from matplotlib import pyplot as plt  # noqa: E402 (the settings come first)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

KINDS = ["SNV", "insertion", "deletion"]
NOT_CARRIED = {"0/0", "./."}
BINS = 50

with Path(snakemake.input[0]).open(newline="") as table:
    reader = csv.DictReader(table, delimiter="\t")
    samples = list(reader.fieldnames or [])[6:]
    variants = list(reader)

contigs = snakemake.params.contigs
figure, axes = plt.subplots(1, len(contigs) + 1, figsize=(12, 3.6), layout="constrained")

for axis, (contig, length) in zip(axes, contigs.items(), strict=False):
    for sample in samples:
        positions = [int(v["position"]) for v in variants if v["contig"] == contig and v[sample] not in NOT_CARRIED]
        axis.hist(positions, bins=BINS, range=(0, length), histtype="step", label=sample)
    axis.set(title=contig, xlabel="position", ylabel=f"variants in {length // BINS} bases")
axes[0].legend(fontsize="small")

bottom = [0] * len(samples)
for kind in KINDS:
    counts = Counter(s for v in variants if v["kind"] == kind for s in samples if v[s] not in NOT_CARRIED)
    heights = [counts[sample] for sample in samples]
    axes[-1].bar(samples, heights, bottom=bottom, label=kind)
    bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
axes[-1].set(title="kinds", ylabel="variants")
axes[-1].legend(fontsize="small")

figure.savefig(snakemake.output.png, dpi=120)
figure.savefig(snakemake.output.svg, metadata={"Date": None})
