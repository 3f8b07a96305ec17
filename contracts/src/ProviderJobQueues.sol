// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "./interfaces/IProviderJobQueues.sol";
import {JobRing} from "./libraries/JobRing.sol";
import {QueueKind} from "./Types.sol";

/// @title What each provider has to do next
/// @notice Three queues a provider: jobs to claim, jobs to cancel, jobs that were topped up. Anybody reads; only the
/// owner, the MetaScheduler contract, writes. It counts a job out when the job ends or goes elsewhere, so that what
/// `has...` announces can be taken; the record of jobs tells which entries are still live.
contract ProviderJobQueues is IProviderJobQueues, Ownable {
    using JobRing for JobRing.Ring;

    /// @notice Nothing waits for this provider, or the job is not this provider's.
    error NoJob();

    // ---------------------------------------------------------------------------------------------------------- state

    /// @notice The most stale entries that one call skips; the next call goes on behind them.
    uint256 public constant MAX_SKIPPED = 32;

    IJobRepository public immutable jobs;

    mapping(address provider => mapping(QueueKind => JobRing.Ring)) private _rings;

    /// @dev The deployer hands the ownership to the MetaScheduler.
    constructor(IJobRepository _jobs) Ownable(msg.sender) {
        jobs = _jobs;
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    /// @notice The difference of the two is the queue's length; what they are on their own says nothing.
    function providerClaimableJobsQueues(address _providerAddr) external view returns (int128 _begin, int128 _end) {
        return _bounds(_rings[_providerAddr][QueueKind.CLAIMABLE]);
    }

    /// @notice As providerClaimableJobsQueues.
    function providerCancellingJobsQueues(address _providerAddr) external view returns (int128 _begin, int128 _end) {
        return _bounds(_rings[_providerAddr][QueueKind.CANCELLING]);
    }

    /// @notice As providerClaimableJobsQueues.
    function providerTopUpJobsQueues(address _providerAddr) external view returns (int128 _begin, int128 _end) {
        return _bounds(_rings[_providerAddr][QueueKind.TOP_UP]);
    }

    function hasNextClaimableJob(address _providerAddr) external view returns (bool) {
        return _rings[_providerAddr][QueueKind.CLAIMABLE].live != 0;
    }

    function hasCancellingJob(address _providerAddr) external view returns (bool) {
        return _rings[_providerAddr][QueueKind.CANCELLING].live != 0;
    }

    function hasTopUpJob(address _providerAddr) external view returns (bool) {
        return _rings[_providerAddr][QueueKind.TOP_UP].live != 0;
    }

    function getClaimableJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return _rings[_providerAddr][QueueKind.CLAIMABLE].live;
    }

    function getCancellingJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return _rings[_providerAddr][QueueKind.CANCELLING].live;
    }

    function getTopUpJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return _rings[_providerAddr][QueueKind.TOP_UP].live;
    }

    /// @notice Whether any of the three queues has a job: one read tells a supervisor that there is nothing to do.
    function hasJob(address _providerAddr) external view returns (bool claimable, bool cancelling, bool topUp) {
        claimable = _rings[_providerAddr][QueueKind.CLAIMABLE].live != 0;
        cancelling = _rings[_providerAddr][QueueKind.CANCELLING].live != 0;
        topUp = _rings[_providerAddr][QueueKind.TOP_UP].live != 0;
    }

    /// @notice A queue's jobs, oldest first, a page at a time.
    /// @param cursor 0 for the first page, then `next` of the page before.
    /// @param scan How many entries to look at, stale ones included.
    /// @return jobIds The live ones among them.
    /// @return next Where the next page begins; 0 when there is none.
    function getQueue(address _providerAddr, QueueKind kind, uint256 cursor, uint256 scan)
        external
        view
        returns (bytes32[] memory jobIds, uint256 next)
    {
        JobRing.Ring storage ring = _rings[_providerAddr][kind];
        uint256 position = cursor < ring.begin ? ring.begin : cursor;
        uint256 left = position < ring.end ? ring.end - position : 0;
        if (scan > left) scan = left;
        jobIds = new bytes32[](scan);
        uint256 found;
        for (next = position + scan; position < next; position++) {
            (bytes32 jobId, uint16 assignments) = ring.entry(position);
            if (jobs.isQueued(jobId, kind, _providerAddr, assignments)) jobIds[found++] = jobId;
        }
        _shorten(jobIds, found);
        if (next >= ring.end) next = 0;
    }

    // ------------------------------------------------------------------------------------------ writes, MetaScheduler

    function pushClaimableJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(_providerAddr, QueueKind.CLAIMABLE, _jobId);
    }

    function popNextClaimableJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _popOne(_providerAddr, QueueKind.CLAIMABLE);
    }

    function pushCancellingJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(_providerAddr, QueueKind.CANCELLING, _jobId);
    }

    function popNextCancellingJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _popOne(_providerAddr, QueueKind.CANCELLING);
    }

    function pushTopUpJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(_providerAddr, QueueKind.TOP_UP, _jobId);
    }

    function popNextTopUpJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _popOne(_providerAddr, QueueKind.TOP_UP);
    }

    /// @notice Appends a job of the provider's, by that assignment of it.
    function push(address _providerAddr, QueueKind kind, bytes32 _jobId, uint16 assignments) external onlyOwner {
        _rings[_providerAddr][kind].push(_jobId, assignments);
    }

    /// @notice Takes up to `count` jobs, oldest first; fewer, or none, where many stale entries lie between.
    function pop(address _providerAddr, QueueKind kind, uint256 count) external onlyOwner returns (bytes32[] memory) {
        return _pop(_providerAddr, kind, count);
    }

    /// @notice Counts a job out that is in the queue and is to leave it, wherever it stands.
    function drop(address _providerAddr, QueueKind kind) external onlyOwner {
        _rings[_providerAddr][kind].drop();
    }

    // -------------------------------------------------------------------------------------------------------- private

    /// @dev A job in a stranger's queue would never be taken.
    function _push(address _providerAddr, QueueKind kind, bytes32 _jobId) private {
        (address provider, uint16 assignments) = jobs.assignmentOf(_jobId);
        if (provider != _providerAddr) revert NoJob();
        _rings[_providerAddr][kind].push(_jobId, assignments);
    }

    function _popOne(address _providerAddr, QueueKind kind) private returns (bytes32) {
        bytes32[] memory jobIds = _pop(_providerAddr, kind, 1);
        return jobIds.length == 0 ? bytes32(0) : jobIds[0];
    }

    function _pop(address _providerAddr, QueueKind kind, uint256 count) private returns (bytes32[] memory jobIds) {
        JobRing.Ring storage ring = _rings[_providerAddr][kind];
        if (ring.live == 0) revert NoJob();
        if (count > ring.live) count = ring.live;
        jobIds = new bytes32[](count);
        uint256 found;
        uint256 skipped;
        uint256 end = ring.end;
        uint256 position = ring.begin;
        for (; position < end && found < count && skipped < MAX_SKIPPED; position++) {
            (bytes32 jobId, uint16 assignments) = ring.entry(position);
            if (jobs.isQueued(jobId, kind, _providerAddr, assignments)) jobIds[found++] = jobId;
            else skipped++;
        }
        ring.advance(position, found);
        _shorten(jobIds, found);
    }

    function _bounds(JobRing.Ring storage ring) private view returns (int128, int128) {
        return (int128(uint128(ring.begin)), int128(uint128(ring.begin + ring.live)));
    }

    function _shorten(bytes32[] memory list, uint256 length) private pure {
        assembly ("memory-safe") {
            mstore(list, length)
        }
    }
}
