"""Draw where in the genome the variants of all samples lie, and of which kind they are."""

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLORS = {"SNV": "#4c78a8", "insertion": "#f58518", "deletion": "#54a24b"}
BARS = 60  # over the whole genome, whose contigs have one scale
BAR, HEIGHT, LEFT, TOP, GAP, BOTTOM = 14, 180, 40, 50, 40, 40

contigs = snakemake.params.contigs
bases_a_bar = -(-sum(contigs.values()) // BARS)
with Path(snakemake.input[0]).open(newline="") as table:
    counts = Counter(
        (row["contig"], (int(row["position"]) - 1) // bases_a_bar, row["kind"])
        for row in csv.DictReader(table, delimiter="\t")
    )
heights = Counter()
for (contig, bar, _), count in counts.items():
    heights[contig, bar] += count
highest = max(heights.values(), default=1)
base_line = TOP + HEIGHT
shapes = []


def text(x: float, y: float, words: str, anchor: str = "middle") -> None:
    shapes.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>')


def box(x: float, y: float, width: float, height: float, color: str) -> None:
    shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{color}"/>')


x = LEFT
text(x, 20, f"variants in {bases_a_bar} bases", "start")
text(x - 8, TOP + 4, str(highest), "end")
text(x - 8, base_line + 4, "0", "end")
for contig, length in contigs.items():
    bars = -(-length // bases_a_bar)
    width = length / bases_a_bar * BAR
    for bar in range(bars):
        y = base_line
        for kind, color in COLORS.items():
            height = counts[contig, bar, kind] / highest * HEIGHT
            y -= height
            if height:
                box(x + bar * BAR + 1, y, BAR - 2, height, color)
    shapes.append(f'<path d="M{x},{TOP}V{base_line}h{width:g}" fill="none" stroke="#888"/>')
    text(x, base_line + 18, "1", "start")
    text(x + width / 2, base_line + 18, contig)
    text(x + width, base_line + 18, str(length), "end")
    x += width + GAP

legend = x - GAP
for kind, color in reversed(COLORS.items()):
    legend -= 90
    box(legend, 10, 10, 10, color)
    text(legend + 15, 20, kind, "start")

size = f'width="{x:g}" height="{base_line + BOTTOM}"'
Path(snakemake.output[0]).write_text(
    f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
    '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n"
)
