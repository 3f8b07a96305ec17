// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "./interfaces/IProviderJobQueues.sol";
import {JobQueue} from "./libraries/JobQueue.sol";

/// @title What each provider has to do next
/// @notice Three queues a provider: jobs to claim, jobs to cancel, jobs that were topped up. Anybody reads; only the
/// owner, the MetaScheduler contract, writes. The market takes a job out of its provider's queues when the job ends or
/// goes elsewhere, so that what stands at the head can always be acted upon.
contract ProviderJobQueues is IProviderJobQueues, Ownable {
    using JobQueue for JobQueue.Queue;

    /// @notice Nothing waits for this provider, or the job is not this provider's.
    error NoJob();

    // ---------------------------------------------------------------------------------------------------------- state

    IJobRepository public immutable jobs;

    /// @notice Counts of the jobs that left and that came; their difference is the queue's length.
    mapping(address => JobQueue.Queue) public providerClaimableJobsQueues;
    mapping(address => JobQueue.Queue) public providerCancellingJobsQueues;
    mapping(address => JobQueue.Queue) public providerTopUpJobsQueues;

    /// @dev The deployer hands the ownership to the MetaScheduler.
    constructor(IJobRepository _jobs) Ownable(msg.sender) {
        jobs = _jobs;
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    function hasNextClaimableJob(address _providerAddr) external view returns (bool) {
        return !providerClaimableJobsQueues[_providerAddr].isEmpty();
    }

    function hasCancellingJob(address _providerAddr) external view returns (bool) {
        return !providerCancellingJobsQueues[_providerAddr].isEmpty();
    }

    function hasTopUpJob(address _providerAddr) external view returns (bool) {
        return !providerTopUpJobsQueues[_providerAddr].isEmpty();
    }

    function getClaimableJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return providerClaimableJobsQueues[_providerAddr].length();
    }

    function getCancellingJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return providerCancellingJobsQueues[_providerAddr].length();
    }

    function getTopUpJobQueueSize(address _providerAddr) external view returns (uint256 length) {
        return providerTopUpJobsQueues[_providerAddr].length();
    }

    // ------------------------------------------------------------------------------------------ writes, MetaScheduler

    function pushClaimableJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(providerClaimableJobsQueues[_providerAddr], _providerAddr, _jobId);
    }

    function popNextClaimableJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _pop(providerClaimableJobsQueues[_providerAddr]);
    }

    function pushCancellingJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(providerCancellingJobsQueues[_providerAddr], _providerAddr, _jobId);
    }

    function popNextCancellingJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _pop(providerCancellingJobsQueues[_providerAddr]);
    }

    function pushTopUpJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        _push(providerTopUpJobsQueues[_providerAddr], _providerAddr, _jobId);
    }

    function popNextTopUpJob(address _providerAddr) external onlyOwner returns (bytes32 jobId) {
        return _pop(providerTopUpJobsQueues[_providerAddr]);
    }

    /// @notice Takes a job out of all queues of a provider, wherever it stands.
    function removeJob(address _providerAddr, bytes32 _jobId) external onlyOwner {
        providerClaimableJobsQueues[_providerAddr].remove(_jobId);
        providerCancellingJobsQueues[_providerAddr].remove(_jobId);
        providerTopUpJobsQueues[_providerAddr].remove(_jobId);
    }

    // -------------------------------------------------------------------------------------------------------- private

    /// @dev A job in a stranger's queue would be a head that reverts.
    function _push(JobQueue.Queue storage queue, address _providerAddr, bytes32 _jobId) private {
        if (jobs.providerOf(_jobId) != _providerAddr) revert NoJob();
        queue.push(_jobId);
    }

    function _pop(JobQueue.Queue storage queue) private returns (bytes32) {
        if (queue.isEmpty()) revert NoJob();
        return queue.pop();
    }
}
