// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {JobState, Life, LifeWord} from "./Life.sol";
import {DEFINITION_WORDS, DefinitionCodec} from "./libraries/DefinitionCodec.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {Job, JobCost, JobDefinition, JobFilter, JobStatus, JobTime, OutOfRange, QueueKind} from "./Types.sol";

/// @title How jobs are kept, and all that anybody can read of them
/// @notice A job takes three words, and a word or more for its packed name and definition. What few jobs have stands in
/// words of its own, which a flag announces.
abstract contract JobStore is IJobRepository {
    /// @notice There is no such job.
    error InvalidJob();

    // ---------------------------------------------------------------------------------------------------------- state

    struct Record {
        address customerAddr;
        uint96 maxCost;
        address providerAddr;
        uint96 costPerMinute;
        Life life;
        /// @dev Only with LifeWord.MORE.
        More more;
        /// @dev Only with LifeWord.ODD.
        Odd odd;
        /// @dev Only with LifeWord.ERROR.
        string lastError;
        /// @dev The name and the definition.
        bytes32[DEFINITION_WORDS] packed;
    }

    struct More {
        uint96 pendingTopUp;
        /// @dev Only with LifeWord.CAPPED.
        uint96 delegateAllowance;
        int64 exitCode;
    }

    /// @dev What follows from the rest, unless a writer of the record set it to something else.
    struct Odd {
        uint96 finalCost;
        uint32 panicTimestamp;
    }

    /// @dev A customer's latest job, and how many there are.
    struct Jobs {
        uint32 latest;
        uint32 count;
    }

    /// @notice How many jobs there are, and the id of the latest.
    uint256 public jobIdCounter;

    mapping(bytes32 jobId => Record) internal _records;
    mapping(address customer => Jobs) internal _jobsOf;

    modifier onlyExisting(bytes32 _jobId) {
        _requireExisting(_jobId);
        _;
    }

    // ---------------------------------------------------------------------------------------------------- reads: jobs

    /// @notice A job; reverts `InvalidJob` for an unknown id.
    function get(bytes32 _jobId) external view onlyExisting(_jobId) returns (Job memory) {
        return _job(_jobId);
    }

    /// @notice A job's fields; zeros for an unknown id.
    function jobs(bytes32 _jobId)
        external
        view
        returns (
            bytes32 jobId,
            JobStatus status,
            address customerAddr,
            address providerAddr,
            JobDefinition memory definition,
            JobCost memory cost,
            JobTime memory time,
            bytes32 jobName,
            bool hasCancelRequest,
            string memory lastError,
            int64 exitCode
        )
    {
        Job memory job = _job(_jobId);
        (jobId, status, customerAddr, providerAddr) = (job.jobId, job.status, job.customerAddr, job.providerAddr);
        (definition, cost, time, jobName) = (job.definition, job.cost, job.time, job.jobName);
        (hasCancelRequest, lastError, exitCode) = (job.hasCancelRequest, job.lastError, job.exitCode);
    }

    /// @notice Many jobs in one call, in the order asked for; an unknown id gives a zero struct and spoils no other.
    function getMany(bytes32[] calldata _jobIds) external view returns (Job[] memory) {
        (uint256 begin, uint256 end) = _encode(_jobIds);
        assembly ("memory-safe") {
            mstore(sub(begin, 32), 32)
            return(sub(begin, 32), add(sub(end, begin), 32))
        }
    }

    /// @notice The jobs that a filter lets through, newest first, a page at a time: one call reads many.
    /// @param filter Whose jobs; the fields that are zero let all through.
    /// @param before The number of a job, the page begins with the next older one; 0: with the newest.
    /// @param scan How many jobs to look at, at least 1: the customer's, where the filter names one, else the market's.
    /// @return The jobs.
    /// @return next The `before` of the next page; 0 when there is none.
    function getPage(JobFilter calldata filter, uint256 before, uint256 scan)
        external
        view
        returns (Job[] memory, uint256 next)
    {
        if (scan == 0) revert OutOfRange(scan, 1, type(uint256).max);
        uint256 id = before == 0 ? _newest(filter.customer) : _older(before, filter.customer);
        bytes32[] memory ids = new bytes32[](Math.min(scan, id));
        uint256 found;
        for (; id != 0 && scan > 0; scan--) {
            if (_passes(_records[bytes32(id)], filter)) ids[found++] = bytes32(id);
            next = id;
            id = _older(id, filter.customer);
        }
        if (id == 0) next = 0;
        assembly ("memory-safe") {
            mstore(ids, found)
        }
        (uint256 begin, uint256 end) = _encode(ids);
        assembly ("memory-safe") {
            mstore(sub(begin, 64), 64)
            mstore(sub(begin, 32), next)
            return(sub(begin, 64), add(sub(end, begin), 64))
        }
    }

    /// @notice What a step of the job's life depends on; reverts `InvalidJob` for an unknown id.
    function getState(bytes32 _jobId) external view onlyExisting(_jobId) returns (JobState memory) {
        return _state(_records[_jobId]);
    }

    // -------------------------------------------------------------------------------------------------- reads: details

    /// @notice The ids of the jobs that a customer requested, oldest first.
    function getByCustomer(address customerAddr) external view returns (bytes32[] memory ids) {
        Jobs memory list = _jobsOf[customerAddr];
        ids = new bytes32[](list.count);
        uint256 id = list.latest;
        for (uint256 i = ids.length; i > 0; id = _records[bytes32(id)].life.previous()) {
            ids[--i] = bytes32(id);
        }
    }

    /// @notice One of the ids of getByCustomer; reverts `InvalidJob` beyond the last.
    function jobIdByCustomer(address customerAddr, uint256 index) external view returns (bytes32) {
        Jobs memory list = _jobsOf[customerAddr];
        if (index >= list.count) revert InvalidJob();
        uint256 id = list.latest;
        for (uint256 i = list.count - 1; i > index; i--) {
            id = _records[bytes32(id)].life.previous();
        }
        return bytes32(id);
    }

    /// @notice Wei of credit that a minute of the job costs at the prices that its assignment fixed; 0 before.
    function costPerMinute(bytes32 _jobId) external view returns (uint256) {
        return _records[_jobId].costPerMinute;
    }

    /// @notice The job's provider; the zero address while it has none.
    function providerOf(bytes32 _jobId) external view returns (address) {
        return _records[_jobId].providerAddr;
    }

    /// @notice The job's provider, and how often the job was assigned.
    function assignmentOf(bytes32 _jobId) external view returns (address provider, uint16 assignments) {
        return (_records[_jobId].providerAddr, _records[_jobId].life.assignments());
    }

    /// @notice Whether a queue's entry of that assignment still says something to that provider.
    function isQueued(bytes32 _jobId, QueueKind kind, address _providerAddr, uint16 assignments)
        external
        view
        returns (bool)
    {
        Record storage record = _records[_jobId];
        Life life = record.life;
        if (life.assignments() != assignments || record.providerAddr != _providerAddr) return false;
        if (kind == QueueKind.CLAIMABLE) return life.status() == JobStatus.META_SCHEDULED;
        return life.has(kind == QueueKind.CANCELLING ? LifeWord.IN_CANCELLING_QUEUE : LifeWord.IN_TOP_UP_QUEUE);
    }

    /// @notice Wei that delegated top-ups may still add to a job; the largest number: only the allowance bounds them.
    function delegateAllowance(bytes32 _jobId) external view returns (uint256) {
        Record storage record = _records[_jobId];
        return record.life.has(LifeWord.CAPPED) ? record.more.delegateAllowance : type(uint256).max;
    }

    // ------------------------------------------------------------------------------------------------------- internal

    function _requireExisting(bytes32 _jobId) internal view {
        if (_records[_jobId].customerAddr == address(0)) revert InvalidJob();
    }

    function _state(Record storage record) internal view returns (JobState memory state) {
        (state.customerAddr, state.maxCost) = (record.customerAddr, record.maxCost);
        (state.providerAddr, state.costPerMinute) = (record.providerAddr, record.costPerMinute);
        state.life = record.life;
    }

    function _finalCost(Record storage record, Life life) internal view returns (uint256) {
        if (life.has(LifeWord.ODD)) return record.odd.finalCost;
        if (JobRules.isJobHot(life.status()) || life.clock() == 0) return 0;
        return JobRules.bill(life.clock(), record.costPerMinute, record.maxCost);
    }

    function _panicTimestamp(Record storage record, Life life) internal view returns (uint256) {
        if (life.has(LifeWord.ODD)) return record.odd.panicTimestamp;
        return life.status() == JobStatus.PANICKED ? life.end() : 0;
    }

    // -------------------------------------------------------------------------------------------------------- private

    function _job(bytes32 _jobId) private view returns (Job memory job) {
        Record storage record = _records[_jobId];
        job.customerAddr = record.customerAddr;
        if (job.customerAddr == address(0)) return job;
        Life life = record.life;
        job.jobId = _jobId;
        job.status = life.status();
        job.providerAddr = record.providerAddr;
        (job.jobName, job.definition) = DefinitionCodec.unpack(DefinitionCodec.load(record.packed));
        job.cost.maxCost = record.maxCost;
        job.cost.finalCost = _finalCost(record, life);
        job.cost.delegateSpendingAuthority = life.has(LifeWord.DELEGATE);
        job.time.submit = life.submit();
        job.time.start = life.start();
        job.time.end = life.end();
        job.time.cancelRequestTimestamp = life.cancelRequest();
        job.time.blockNumberStateChange = life.blockNumberStateChange();
        job.time.panicTimestamp = _panicTimestamp(record, life);
        job.hasCancelRequest = life.has(LifeWord.CANCEL_REQUESTED);
        if (life.has(LifeWord.MORE)) {
            (job.cost.pendingTopUp, job.exitCode) = (record.more.pendingTopUp, record.more.exitCode);
        }
        if (life.has(LifeWord.ERROR)) job.lastError = record.lastError;
    }

    /// @dev Many jobs ABI-encoded one by one, each in the memory that the one before needed: what memory costs grows
    /// with its square, and a page of a thousand jobs would not fit a call.
    /// @return begin Where the encoded array begins, with two words to spare before it.
    /// @return end Where it ends.
    function _encode(bytes32[] memory ids) private view returns (uint256 begin, uint256 end) {
        assembly ("memory-safe") {
            begin := add(mload(0x40), 64)
            mstore(begin, mload(ids))
            end := add(add(begin, 32), shl(5, mload(ids)))
            mstore(0x40, end)
        }
        for (uint256 i = 0; i < ids.length; i++) {
            bytes memory job = abi.encode(_job(ids[i]));
            assembly ("memory-safe") {
                let offsets := add(begin, 32)
                mstore(add(offsets, shl(5, i)), sub(end, offsets))
                // Without the offset that is in front of the one value.
                let length := sub(mload(job), 32)
                mcopy(end, add(job, 64), length)
                end := add(end, length)
                mstore(0x40, end)
            }
        }
    }

    function _newest(address customer) private view returns (uint256) {
        return customer == address(0) ? jobIdCounter : _jobsOf[customer].latest;
    }

    function _older(uint256 id, address customer) private view returns (uint256) {
        if (customer != address(0)) return _records[bytes32(id)].life.previous();
        return Math.min(id - 1, jobIdCounter);
    }

    function _passes(Record storage record, JobFilter calldata filter) private view returns (bool) {
        if (filter.customer != address(0) && record.customerAddr != filter.customer) return false;
        if (filter.provider != address(0) && record.providerAddr != filter.provider) return false;
        // forge-lint: disable-next-line(incorrect-shift)
        return filter.statuses == 0 || filter.statuses & 1 << uint8(record.life.status()) != 0;
    }
}
