// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {Job, JobCost, JobDefinition, JobState, JobStatus, JobTime, ProviderPrices} from "./Types.sol";

/// @title The record of all jobs
/// @notice Anybody reads; only the holder of METASCHEDULER_ROLE, the MetaScheduler contract, writes. The status machine
/// is enforced here, so that no writer can break it.
contract JobRepository is IJobRepository, AccessControl {
    /// @notice There is no such job.
    error InvalidJob();

    // ---------------------------------------------------------------------------------------------------------- state

    /// @dev What a provider's assignment fixes.
    struct Assignment {
        ProviderPrices prices;
        uint256 timestamp;
    }

    /// @dev The most bytes of an error's text that are kept.
    uint256 private constant MAX_ERROR_BYTES = 1024;

    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");

    /// @notice How many jobs there are, and the id of the latest.
    uint256 public jobIdCounter;
    /// @notice A job's fields; zeros for an unknown id.
    mapping(bytes32 => Job) public jobs;
    /// @notice A customer's jobs, oldest first.
    mapping(address => bytes32[]) public jobIdByCustomer;

    mapping(bytes32 jobId => Assignment) private _assignments;

    modifier onlyExisting(bytes32 _jobId) {
        _requireExisting(_jobId);
        _;
    }

    /// @dev The deployer administers the roles; it cannot write jobs.
    constructor() {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    /// @notice A job; reverts `InvalidJob` for an unknown id.
    function get(bytes32 _jobId) external view onlyExisting(_jobId) returns (Job memory) {
        return jobs[_jobId];
    }

    /// @notice Many jobs in one call, in the order asked for; an unknown id gives a zero struct and spoils no other.
    function getMany(bytes32[] calldata _jobIds) external view returns (Job[] memory found) {
        found = new Job[](_jobIds.length);
        for (uint256 i = 0; i < _jobIds.length; i++) {
            found[i] = jobs[_jobIds[i]];
        }
    }

    /// @notice What changes in a job's life, without its definition; reverts `InvalidJob` for an unknown id.
    function getState(bytes32 _jobId) external view onlyExisting(_jobId) returns (JobState memory) {
        Job storage job = jobs[_jobId];
        return JobState({
            status: job.status,
            customerAddr: job.customerAddr,
            providerAddr: job.providerAddr,
            hasCancelRequest: job.hasCancelRequest,
            cost: job.cost,
            time: job.time
        });
    }

    /// @notice The ids of a customer's jobs, oldest first.
    function getByCustomer(address customerAddr) external view returns (bytes32[] memory) {
        return jobIdByCustomer[customerAddr];
    }

    /// @notice The prices that were fixed when the job was assigned; zeros while it has no provider.
    function priceOf(bytes32 _jobId) external view returns (ProviderPrices memory) {
        return _assignments[_jobId].prices;
    }

    /// @notice Wei of credit that a minute of the job costs at its fixed prices; 0 while it has no provider.
    function costPerMinute(bytes32 _jobId) external view returns (uint256) {
        JobDefinition storage definition = jobs[_jobId].definition;
        return JobRules.costPerMinute(
            definition.ntasks,
            definition.cpusPerTask,
            definition.memPerCpu,
            definition.gpus,
            _assignments[_jobId].prices
        );
    }

    /// @notice When the job was assigned to its provider; 0 while it has none.
    function assignedAt(bytes32 _jobId) external view returns (uint256) {
        return _assignments[_jobId].timestamp;
    }

    /// @notice The job's provider; the zero address while it has none.
    function providerOf(bytes32 _jobId) external view returns (address) {
        return jobs[_jobId].providerAddr;
    }

    // ------------------------------------------------------------------------------------------ writes, MetaScheduler

    /// @notice Records a job under the next id, whatever id it carries.
    function create(Job memory _job) external onlyRole(METASCHEDULER_ROLE) returns (bytes32) {
        bytes32 jobId = bytes32(++jobIdCounter);
        _job.jobId = jobId;
        _job.time.blockNumberStateChange = block.number;
        jobs[jobId] = _job;
        jobIdByCustomer[_job.customerAddr].push(jobId);
        emit JobCreated(jobId);
        return jobId;
    }

    /// @notice Replaces a job as a whole; a change of status must be allowed.
    function update(Job memory _job) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_job.jobId) {
        Job storage job = jobs[_job.jobId];
        JobStatus from = job.status;
        if (_job.status != from) {
            JobRules.checkNewJobStatus(from, _job.status);
            _job.time.blockNumberStateChange = block.number;
            emit JobTransitionEvent(_job.jobId, from, _job.status);
        }
        _reindex(_job.jobId, job.customerAddr, _job.customerAddr);
        jobs[_job.jobId] = _job;
    }

    /// @notice Gives a job to a provider at these prices, which stay fixed until the job ends or comes back.
    function assign(bytes32 _jobId, address _providerAddr, ProviderPrices calldata _prices)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].providerAddr = _providerAddr;
        _assignments[_jobId] = Assignment({prices: _prices, timestamp: block.timestamp});
    }

    /// @notice Takes a job from its provider.
    function unassign(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        delete jobs[_jobId].providerAddr;
        delete _assignments[_jobId];
    }

    function setJobStatus(bytes32 _jobId, JobStatus _newStatus)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Job storage job = jobs[_jobId];
        JobStatus from = job.status;
        JobRules.checkNewJobStatus(from, _newStatus);
        job.status = _newStatus;
        job.time.blockNumberStateChange = block.number;
        emit JobTransitionEvent(_jobId, from, _newStatus);
    }

    function setCustomerAddr(bytes32 _jobId, address _customerAddr)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        _reindex(_jobId, jobs[_jobId].customerAddr, _customerAddr);
        jobs[_jobId].customerAddr = _customerAddr;
    }

    /// @notice Changes the provider alone; the fixed prices stay.
    function setProviderAddr(bytes32 _jobId, address _providerAddr)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].providerAddr = _providerAddr;
    }

    function setDefinition(bytes32 _jobId, JobDefinition calldata _definition)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].definition = _definition;
    }

    function setCost(bytes32 _jobId, JobCost calldata _cost)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].cost = _cost;
    }

    function setTime(bytes32 _jobId, JobTime calldata _time)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].time = _time;
    }

    function setJobName(bytes32 _jobId, bytes32 _jobName) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        jobs[_jobId].jobName = _jobName;
    }

    function setHasCancelRequest(bytes32 _jobId, bool _hasCancelRequest)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        jobs[_jobId].hasCancelRequest = _hasCancelRequest;
    }

    function setLastError(bytes32 _jobId, string calldata _error)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        // Cut, never refused: a job must be able to end. Not within a character of UTF-8, which some readers refuse.
        uint256 length = bytes(_error).length;
        if (length > MAX_ERROR_BYTES) {
            length = MAX_ERROR_BYTES;
            while (length > 0 && bytes(_error)[length] & 0xc0 == 0x80) length--;
        }
        jobs[_jobId].lastError = string(bytes(_error)[:length]);
    }

    function setExitCode(bytes32 _jobId, int64 _exitCode) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        jobs[_jobId].exitCode = _exitCode;
    }

    // -------------------------------------------------------------------------------------------------------- private

    function _requireExisting(bytes32 _jobId) private view {
        if (jobs[_jobId].jobId == 0) revert InvalidJob();
    }

    /// @dev Keeps both customers' lists in order when a job changes hands: rare, so the search may cost.
    function _reindex(bytes32 _jobId, address from, address to) private {
        if (from == to) return;
        bytes32[] storage ids = jobIdByCustomer[from];
        uint256 i = 0;
        while (ids[i] != _jobId) i++;
        for (; i + 1 < ids.length; i++) {
            ids[i] = ids[i + 1];
        }
        ids.pop();

        bytes32[] storage others = jobIdByCustomer[to];
        others.push(_jobId);
        for (uint256 j = others.length - 1; j > 0 && others[j - 1] > _jobId; j--) {
            (others[j - 1], others[j]) = (others[j], others[j - 1]);
        }
    }
}
