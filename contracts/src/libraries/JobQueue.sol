// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title A first-in-first-out queue of jobs from which any job can leave
/// @notice A ring of links whose slot 0 is the anchor: its `next` is the head, its `prev` the tail. A job is in a queue
/// at most once; adding, taking and removing cost the same whatever the length, so no backlog can make a call too dear.
library JobQueue {
    /// @notice There is nothing to take.
    error Empty();
    /// @notice No job has such an id: ids are a counter from 1.
    error OutOfBounds();

    struct Link {
        uint128 prev;
        uint128 next;
    }

    struct Queue {
        /// @dev How many jobs have left.
        int128 _begin;
        /// @dev How many jobs have come.
        int128 _end;
        mapping(uint128 jobKey => Link) _links;
    }

    /// @notice Appends a job; nothing happens if it is queued already.
    function push(Queue storage queue, bytes32 jobId) internal {
        uint128 key = _key(jobId);
        if (_contains(queue, key)) return;

        uint128 last = queue._links[0].prev;
        queue._links[last].next = key;
        queue._links[key] = Link({prev: last, next: 0});
        queue._links[0].prev = key;
        queue._end++;
    }

    /// @notice Takes the oldest job.
    function pop(Queue storage queue) internal returns (bytes32 jobId) {
        if (isEmpty(queue)) revert Empty();
        jobId = bytes32(uint256(queue._links[0].next));
        remove(queue, jobId);
    }

    /// @notice Takes a job from wherever it stands; nothing happens if it is not queued.
    function remove(Queue storage queue, bytes32 jobId) internal {
        uint128 key = _key(jobId);
        if (!_contains(queue, key)) return;

        Link memory link = queue._links[key];
        queue._links[link.prev].next = link.next;
        queue._links[link.next].prev = link.prev;
        delete queue._links[key];
        queue._begin++;
    }

    function isEmpty(Queue storage queue) internal view returns (bool) {
        return queue._begin == queue._end;
    }

    function length(Queue storage queue) internal view returns (uint256) {
        return uint256(int256(queue._end - queue._begin));
    }

    /// @dev The only job of a queue has the anchor on both sides, as a job outside has: the anchor tells them apart.
    function _contains(Queue storage queue, uint128 key) private view returns (bool) {
        Link memory link = queue._links[key];
        return link.prev != 0 || link.next != 0 || queue._links[0].next == key;
    }

    function _key(bytes32 jobId) private pure returns (uint128) {
        uint256 id = uint256(jobId);
        if (id == 0 || id > type(uint128).max) revert OutOfBounds();
        // Cannot truncate: bounded on the line above.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(id);
    }
}
