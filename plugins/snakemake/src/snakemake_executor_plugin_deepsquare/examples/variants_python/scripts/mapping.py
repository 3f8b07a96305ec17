"""Find where pairs of reads belong in a genome.

The sequences of K bases of a read say where in the genome it would begin. Where the first and the last one that are known say
the same, the read is held against the genome there. Where they don't, the read has an insertion or a deletion, which is put
where the fewest bases differ.
"""

import operator
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from sequences import reverse_complement

# More than sequencing errors and a mutation make: it is a read with an insertion or a deletion too near to its end to be seen.
MOST_DIFFERENCES = 3
LONGEST_GAP = 10


class Place(NamedTuple):
    """Where a read belongs, from 0, and how; the least has the fewest differences."""

    differences: int
    contig: str
    start: int
    end: int
    cigar: str
    is_reverse: bool


class Mapper:
    """A genome and the index of its sequences of K bases."""

    def __init__(self, genome: dict[str, str], k: int, places: dict[str, tuple[str, int]]) -> None:
        self.genome, self.k, self.places = genome, k, places

    def place_pairs(self, pairs: list[tuple[str, str]]) -> list[tuple[Place, Place] | None]:
        """Where each pair belongs; none where its reads don't belong to opposite strands of one contig."""
        return [self._place_pair(forward, backward) for forward, backward in pairs]

    def _place_pair(self, forward: str, backward: str) -> tuple[Place, Place] | None:
        one, other = self._place(forward), self._place(backward)
        if one and other and one.contig == other.contig and one.is_reverse != other.is_reverse:
            return one, other
        return None

    def _place(self, read: str) -> Place | None:
        """The best of both strands."""
        strands = [self._align(read, False), self._align(reverse_complement(read), True)]
        return min((place for place in strands if place and place.differences <= MOST_DIFFERENCES), default=None)

    def _align(self, read: str, is_reverse: bool) -> Place | None:
        offsets = range(len(read) - self.k + 1)
        first, last = self._beginning(read, offsets), self._beginning(read, reversed(offsets))
        if first is None or last is None or first[0] != last[0]:
            return None
        (contig, start), (_, late_start) = first, last
        end = late_start + len(read)
        bases = self.genome[contig]
        if min(start, late_start) < 0 or end > len(bases) or abs(late_start - start) > LONGEST_GAP:
            return None
        differences, cigar = align(read, bases[start : start + len(read)], bases[late_start:end], late_start - start)
        return Place(differences, contig, start, end, cigar, is_reverse)

    def _beginning(self, read: str, offsets: Iterable[int]) -> tuple[str, int] | None:
        """Where the read begins by the first of its sequences that the index knows."""
        for offset in offsets:
            if place := self.places.get(read[offset : offset + self.k]):
                contig, position = place
                return contig, position - offset
        return None


def align(read: str, head: str, tail: str, gap: int) -> tuple[int, str]:
    """How many bases of a read differ from what it begins and what it ends with in the genome, and its CIGAR.

    `gap` is how many bases of the genome the read leaves out between the two, or less than 0: how many it has in addition.
    """
    if gap == 0:
        return sum(map(operator.ne, read, head)), f"{len(read)}M"
    size = len(read) - max(0, -gap)
    # By how many bases are taken from the head, and from the tail.
    in_head = [0, *accumulate(map(operator.ne, read, head))]
    in_tail = [0, *accumulate(map(operator.ne, reversed(read), reversed(tail)))]
    # The first of the best splits: a gap is as far to the left as it can be.
    differences, split = min((in_head[split] + in_tail[size - split], split) for split in range(1, size))
    return differences, f"{split}M{abs(gap)}{'D' if gap > 0 else 'I'}{size - split}M"
