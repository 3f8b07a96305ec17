// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobState} from "../Life.sol";
import {Job, JobCost, JobDefinition, JobStatus, JobTime, ProviderPrices, QueueKind} from "../Types.sol";

/// @title What the market needs of the record of jobs
interface IJobRepository {
    /// @notice A job was recorded.
    event JobCreated(bytes32 _jobId);
    /// @notice A job's status changed.
    event JobTransitionEvent(bytes32 _jobId, JobStatus _from, JobStatus _to);
    /// @notice A job's status changed, or the job was recorded (`from` and `to` are PENDING): for clients that ask
    /// their node for the jobs of one customer or provider alone.
    /// @param provider The provider, also of a job that leaves it by this change.
    /// @param costPerMinute Wei of credit that a minute costs at the prices that the assignment fixed; 0 before.
    event JobStatusChanged(
        bytes32 indexed jobId,
        address indexed customer,
        address indexed provider,
        JobStatus from,
        JobStatus to,
        uint256 costPerMinute
    );

    function create(Job memory _job) external returns (bytes32);
    function update(Job memory _job) external;
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

    function open(
        address customer,
        uint256 lockedCredits,
        bool delegateSpendingAuthority,
        uint256 delegateAllowance,
        bytes memory packed
    ) external returns (bytes32);
    function assign(bytes32 _jobId, address _providerAddr, ProviderPrices memory _prices, uint256 _mostPerMinute)
        external
        returns (bool assigned, uint256 costPerMinute_, uint16 assignments);
    function release(bytes32 _jobId) external;
    function claim(bytes32 _jobId) external returns (JobState memory, bytes memory encodedDefinition);
    function start(bytes32 _jobId) external;
    function end(bytes32 _jobId, JobStatus _status, uint256 _billedSecond, int64 _exitCode)
        external
        returns (uint256 finalCost);
    function addCredits(bytes32 _jobId, uint256 _amount, bool _delegated) external;
    function noticeTopUp(bytes32 _jobId) external returns (JobState memory, uint256 pendingTopUp);
    function requestCancel(bytes32 _jobId) external;
    function noticeCancel(bytes32 _jobId) external returns (address customer);
    function setDelegate(bytes32 _jobId, bool _authority, uint256 _allowance) external;

    function get(bytes32 _jobId) external view returns (Job memory);
    function getState(bytes32 _jobId) external view returns (JobState memory);
    function getByCustomer(address customerAddr) external view returns (bytes32[] memory);
    function costPerMinute(bytes32 _jobId) external view returns (uint256);
    function delegateAllowance(bytes32 _jobId) external view returns (uint256);
    function assignmentOf(bytes32 _jobId) external view returns (address provider, uint16 assignments);
    function isQueued(bytes32 _jobId, QueueKind kind, address _providerAddr, uint16 assignments)
        external
        view
        returns (bool);
}
