// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Job, JobCost, JobDefinition, JobState, JobStatus, JobTime, ProviderPrices} from "../Types.sol";

/// @title What the market needs of the record of jobs
interface IJobRepository {
    /// @notice A job was recorded.
    event JobCreated(bytes32 _jobId);
    /// @notice A job's status changed.
    event JobTransitionEvent(bytes32 _jobId, JobStatus _from, JobStatus _to);

    function create(Job memory _job) external returns (bytes32);
    function update(Job memory _job) external;
    function assign(bytes32 _jobId, address _providerAddr, ProviderPrices memory _prices) external;
    function unassign(bytes32 _jobId) external;
    function setJobStatus(bytes32 _jobId, JobStatus _newStatus) external;
    function setCustomerAddr(bytes32 _jobId, address _customerAddr) external;
    function setProviderAddr(bytes32 _jobId, address _providerAddr) external;
    function setDefinition(bytes32 _jobId, JobDefinition memory _definition) external;
    function setCost(bytes32 _jobId, JobCost memory _cost) external;
    function setTime(bytes32 _jobId, JobTime memory _time) external;
    function setJobName(bytes32 _jobId, bytes32 _jobName) external;
    function setHasCancelRequest(bytes32 _jobId, bool _hasCancelRequest) external;
    function setLastError(bytes32 _jobId, string memory _error) external;
    function setExitCode(bytes32 _jobId, int64 _exitCode) external;

    function get(bytes32 _jobId) external view returns (Job memory);
    function getMany(bytes32[] memory _jobIds) external view returns (Job[] memory);
    function getState(bytes32 _jobId) external view returns (JobState memory);
    function getByCustomer(address customerAddr) external view returns (bytes32[] memory);
    function priceOf(bytes32 _jobId) external view returns (ProviderPrices memory);
    function costPerMinute(bytes32 _jobId) external view returns (uint256);
    function assignedAt(bytes32 _jobId) external view returns (uint256);
    function providerOf(bytes32 _jobId) external view returns (address);
}
