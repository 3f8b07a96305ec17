// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title A first-in-first-out queue of small entries, four a word
/// @notice An entry is a job's id and the count of its assignments: 6 bytes and 2. A job that leaves the queue from the
/// middle stays in its place as a stale entry, which the reader recognises and skips; the queue only counts it out.
/// Once nothing live is left, the positions start anew, so that words are written over, which costs a quarter of new
/// ones.
library JobRing {
    /// @notice There is nothing to take.
    error Empty();
    /// @notice No job has such an id: ids are a counter from 1.
    error OutOfBounds();

    struct Ring {
        /// @dev The position of the oldest entry.
        uint64 begin;
        /// @dev The position of the next entry to come.
        uint64 end;
        /// @dev How many entries between them are live.
        uint64 live;
        mapping(uint256 word => uint256) words;
    }

    /// @dev Where positions start, and start anew: not at 0, which would empty the word that holds them and make it new
    /// again.
    uint64 private constant START = 4;
    uint256 private constant LANES = 4;

    /// @notice Appends an entry.
    function push(Ring storage ring, bytes32 jobId, uint16 assignments) internal {
        uint256 id = uint256(jobId);
        if (id == 0 || id > type(uint48).max) revert OutOfBounds();
        (uint64 begin, uint64 end, uint64 live) = (ring.begin, ring.end, ring.live);
        if (end == 0) (begin, end) = (START, START);
        uint256 shift = _shift(end);
        uint256 word = ring.words[end / LANES];
        ring.words[end / LANES] = word & ~(uint256(type(uint64).max) << shift) | (id << 16 | assignments) << shift;
        (ring.begin, ring.end, ring.live) = (begin, end + 1, live + 1);
    }

    /// @notice The entry at a position between begin and end.
    function entry(Ring storage ring, uint256 position) internal view returns (bytes32 jobId, uint16 assignments) {
        uint64 lane = uint64(ring.words[position / LANES] >> _shift(position));
        // The lowest two bytes are meant.
        // forge-lint: disable-next-line(unsafe-typecast)
        return (bytes32(uint256(lane >> 16)), uint16(lane));
    }

    /// @notice Puts the beginning at a position between begin and end; so many live entries came before it.
    function advance(Ring storage ring, uint256 begin, uint256 live) internal {
        if (ring.live == 0) revert Empty();
        // Cannot truncate: at most `end`.
        // forge-lint: disable-next-line(unsafe-typecast)
        ring.begin = uint64(begin);
        if (begin == ring.end || live >= ring.live) _restart(ring);
        // Cannot truncate: less than `live`.
        // forge-lint: disable-next-line(unsafe-typecast)
        else ring.live -= uint64(live);
    }

    /// @notice Counts out an entry that is live no more.
    function drop(Ring storage ring) internal {
        if (ring.live <= 1) _restart(ring);
        else ring.live--;
    }

    function _restart(Ring storage ring) private {
        (ring.begin, ring.end, ring.live) = (START, START, 0);
    }

    function _shift(uint256 position) private pure returns (uint256) {
        return position % LANES * 64;
    }
}
