// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {JobStore} from "./JobStore.sol";
import {JobState, Life, LifeWord} from "./Life.sol";
import {DefinitionCodec} from "./libraries/DefinitionCodec.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {Job, JobCost, JobDefinition, JobStatus, JobTime, OutOfRange, ProviderPrices, StorageType} from "./Types.sol";

/// @title The record of all jobs
/// @notice Anybody reads; only the holder of METASCHEDULER_ROLE, the MetaScheduler contract, writes. The status machine
/// is enforced here, so that no writer can break it.
contract JobRepository is JobStore, AccessControl {
    using SafeCast for uint256;

    /// @dev The most bytes of an error's text that are kept.
    uint256 private constant MAX_ERROR_BYTES = 1024;

    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");

    /// @dev The deployer administers the roles; it cannot write jobs.
    constructor() {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ------------------------------------------------------------------------------------- the steps of a job's life

    /// @notice Records a new job.
    /// @param delegateAllowance_ Wei that delegated top-ups may add; the largest number: no cap.
    /// @param packed Its name and definition.
    function open(
        address customer,
        uint256 lockedCredits,
        bool delegateSpendingAuthority,
        uint256 delegateAllowance_,
        bytes calldata packed
    ) external onlyRole(METASCHEDULER_ROLE) returns (bytes32 jobId) {
        Life life;
        (jobId, life) = _append(customer);
        Record storage record = _records[jobId];
        (record.customerAddr, record.maxCost) = (customer, lockedCredits.toUint96());
        record.life = _setDelegate(record, life, delegateSpendingAuthority, delegateAllowance_);
        DefinitionCodec.save(record.packed, packed);
        _announce(jobId, customer);
    }

    /// @notice Gives a job to a provider at these prices, which stay fixed until the job ends or comes back; but not if
    /// the job's credits would not buy a minute.
    /// @param _mostPerMinute Nor if a minute costs more wei than that.
    /// @return assigned Whether the job was assigned.
    /// @return costPerMinute_ Wei of credit that a minute costs.
    /// @return assignments How often the job was assigned, this time included.
    function assign(bytes32 _jobId, address _providerAddr, ProviderPrices calldata _prices, uint256 _mostPerMinute)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
        returns (bool assigned, uint256 costPerMinute_, uint16 assignments)
    {
        Record storage record = _records[_jobId];
        costPerMinute_ = _minuteCost(record, _prices);
        assigned = costPerMinute_ <= Math.min(record.maxCost, _mostPerMinute);
        if (!assigned) return (false, costPerMinute_, 0);

        (record.providerAddr, record.costPerMinute) = (_providerAddr, costPerMinute_.toUint96());
        Life life = record.life.withClock(_timestamp()).withOneMoreAssignment();
        _change(_jobId, record, life, JobStatus.META_SCHEDULED);
        assignments = life.assignments();
    }

    /// @notice Takes a job from its provider: it is PENDING again. The next claim announces all its minutes, so that no
    /// top-up is pending.
    function release(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        Record storage record = _records[_jobId];
        Life life = _leaveQueues(record, record.life).withClock(0);
        _change(_jobId, record, life, JobStatus.PENDING);
        (record.providerAddr, record.costPerMinute) = (address(0), 0);
    }

    /// @notice The job's provider took it: SCHEDULED.
    /// @return The job.
    /// @return encodedDefinition Its definition, ABI-encoded: the market passes it on as it is.
    function claim(bytes32 _jobId)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
        returns (JobState memory, bytes memory encodedDefinition)
    {
        Record storage record = _records[_jobId];
        _change(_jobId, record, record.life.withClock(_timestamp()), JobStatus.SCHEDULED);
        (, encodedDefinition) = DefinitionCodec.encode(DefinitionCodec.load(record.packed));
        return (_state(record), encodedDefinition);
    }

    /// @notice The job runs from now on.
    function start(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        Record storage record = _records[_jobId];
        _change(_jobId, record, record.life.withStart(_timestamp()), JobStatus.RUNNING);
    }

    /// @notice Ends a job.
    /// @param _billedSecond How many seconds are billed.
    /// @return finalCost What they cost, at most what is locked.
    function end(bytes32 _jobId, JobStatus _status, uint256 _billedSecond, int64 _exitCode)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
        returns (uint256 finalCost)
    {
        Record storage record = _records[_jobId];
        Life life = _leaveQueues(record, record.life).withFlag(LifeWord.ODD, false).withEnd(_timestamp())
            .withClock(Math.min(_billedSecond, type(uint32).max));
        if (_exitCode != 0) life = _setExitCode(record, life, _exitCode);
        life = _change(_jobId, record, life, _status);
        return _finalCost(record, life);
    }

    /// @notice Adds to what is locked; the provider has to take notice.
    /// @param _delegated Whether it counts against the cap on delegated top-ups.
    function addCredits(bytes32 _jobId, uint256 _amount, bool _delegated)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        Life life = record.life;
        More storage more = record.more;
        record.maxCost = SafeCast.toUint96(record.maxCost + _amount);
        more.pendingTopUp = SafeCast.toUint96(more.pendingTopUp + _amount);
        if (_delegated && life.has(LifeWord.CAPPED)) more.delegateAllowance -= SafeCast.toUint96(_amount);
        record.life = life.withFlag(LifeWord.MORE | LifeWord.IN_TOP_UP_QUEUE, true);
    }

    /// @notice The provider took notice of all top-ups so far.
    /// @return The job.
    /// @return pendingTopUp What they added.
    function noticeTopUp(bytes32 _jobId)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
        returns (JobState memory, uint256 pendingTopUp)
    {
        Record storage record = _records[_jobId];
        pendingTopUp = record.more.pendingTopUp;
        record.more.pendingTopUp = 0;
        record.life = record.life.withFlag(LifeWord.IN_TOP_UP_QUEUE, false);
        return (_state(record), pendingTopUp);
    }

    /// @notice The customer wants the job cancelled; its provider, if it has one, has to take notice.
    function requestCancel(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        Life life = _records[_jobId].life;
        if (!life.has(LifeWord.CANCEL_REQUESTED)) life = life.withCancelRequest(_timestamp());
        life = life.withFlag(LifeWord.CANCEL_REQUESTED, true);
        _records[_jobId].life = life.withFlag(LifeWord.IN_CANCELLING_QUEUE, life.status() != JobStatus.PENDING);
    }

    /// @notice The provider took notice of the cancel request.
    function noticeCancel(bytes32 _jobId)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
        returns (address customer)
    {
        _records[_jobId].life = _records[_jobId].life.withFlag(LifeWord.IN_CANCELLING_QUEUE, false);
        return _records[_jobId].customerAddr;
    }

    /// @notice Whether delegated top-ups are allowed, and how much they may still add (the largest number: no cap).
    function setDelegate(bytes32 _jobId, bool _authority, uint256 _allowance)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        record.life = _setDelegate(record, record.life, _authority, _allowance);
    }

    // ----------------------------------------------------------------------------------------------- writes as of v1.2

    /// @notice Records a job under the next id, whatever id it carries.
    function create(Job calldata _job) external onlyRole(METASCHEDULER_ROLE) returns (bytes32 jobId) {
        Life life;
        (jobId, life) = _append(_job.customerAddr);
        _write(_records[jobId], life.withStatus(_job.status), _job);
        _announce(jobId, _job.customerAddr);
    }

    /// @notice Replaces a job as a whole; a change of status must be allowed.
    function update(Job calldata _job) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_job.jobId) {
        Record storage record = _records[_job.jobId];
        Life life = record.life;
        if (life.status() != _job.status) life = _change(_job.jobId, record, life, _job.status);
        _write(record, life, _job);
    }

    function setJobStatus(bytes32 _jobId, JobStatus _newStatus)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        Life life = record.life;
        // Once the job is cold, the time of its assignment would be the seconds that it is billed for.
        if (JobRules.isJobCold(_newStatus)) life = life.withClock(0);
        _change(_jobId, record, life, _newStatus);
    }

    /// @notice Changes who owns the job. It stays in the list of the customer who requested it.
    function setCustomerAddr(bytes32 _jobId, address _customerAddr)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        _setCustomer(_records[_jobId], _customerAddr);
    }

    /// @notice Changes the provider alone; the fixed price stays.
    function setProviderAddr(bytes32 _jobId, address _providerAddr)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        _records[_jobId].providerAddr = _providerAddr;
    }

    function setDefinition(bytes32 _jobId, JobDefinition calldata _definition)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        (bytes32 jobName,) = DefinitionCodec.unpack(DefinitionCodec.load(record.packed));
        _setPacked(record, jobName, _definition);
    }

    function setCost(bytes32 _jobId, JobCost calldata _cost)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        record.life = _setCost(record, record.life, _cost);
    }

    function setTime(bytes32 _jobId, JobTime calldata _time)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        record.life = _setTime(record, record.life, _time);
    }

    function setJobName(bytes32 _jobId, bytes32 _jobName) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        Record storage record = _records[_jobId];
        _save(record, DefinitionCodec.rename(DefinitionCodec.load(record.packed), _jobName));
    }

    function setHasCancelRequest(bytes32 _jobId, bool _hasCancelRequest)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        record.life = record.life.withFlag(LifeWord.CANCEL_REQUESTED, _hasCancelRequest);
    }

    function setLastError(bytes32 _jobId, string calldata _error)
        external
        onlyRole(METASCHEDULER_ROLE)
        onlyExisting(_jobId)
    {
        Record storage record = _records[_jobId];
        record.life = _setLastError(record, record.life, _error);
    }

    function setExitCode(bytes32 _jobId, int64 _exitCode) external onlyRole(METASCHEDULER_ROLE) onlyExisting(_jobId) {
        Record storage record = _records[_jobId];
        record.life = _setExitCode(record, record.life, _exitCode);
    }

    // ---------------------------------------------------------------------------------------------- private: a new job

    /// @dev Takes the next id, and puts it at the head of the customer's list.
    function _append(address customer) private returns (bytes32 jobId, Life life) {
        uint256 number = ++jobIdCounter;
        jobId = bytes32(number);
        Jobs memory list = _jobsOf[customer];
        life = life.withPrevious(list.latest).withSubmit(_timestamp()).withBlockNumberStateChange(_blockNumber());
        _jobsOf[customer] = Jobs({latest: number.toUint32(), count: list.count + 1});
    }

    /// @dev Saturated, as the block number is: no step of a job's life, its end least of all, fails for what only tells
    /// when it was.
    function _timestamp() private view returns (uint256) {
        return Math.min(block.timestamp, type(uint32).max);
    }

    function _blockNumber() private view returns (uint256) {
        return Math.min(block.number, type(uint32).max);
    }

    function _announce(bytes32 jobId, address customer) private {
        emit JobCreated(jobId);
        emit JobStatusChanged(jobId, customer, address(0), JobStatus.PENDING, JobStatus.PENDING, 0);
    }

    // ------------------------------------------------------------------------------------- private: changes of a job

    /// @dev Checks, stores and announces a change of status.
    function _change(bytes32 jobId, Record storage record, Life life, JobStatus to) private returns (Life changed) {
        JobStatus from = life.status();
        JobRules.checkNewJobStatus(from, to);
        changed = life.withStatus(to).withBlockNumberStateChange(_blockNumber());
        record.life = changed;
        emit JobTransitionEvent(jobId, from, to);
        emit JobStatusChanged(jobId, record.customerAddr, record.providerAddr, from, to, record.costPerMinute);
    }

    function _minuteCost(Record storage record, ProviderPrices calldata prices) private view returns (uint256) {
        (uint64 gpus, uint64 mem, uint64 cpus, uint64 tasks) = DefinitionCodec.loadNumbers(record.packed);
        return JobRules.costPerMinute(tasks, cpus, mem, gpus, prices);
    }

    function _leaveQueues(Record storage record, Life life) private returns (Life) {
        if (life.has(LifeWord.IN_TOP_UP_QUEUE)) record.more.pendingTopUp = 0;
        return life.withFlag(LifeWord.IN_CANCELLING_QUEUE | LifeWord.IN_TOP_UP_QUEUE, false);
    }

    /// @dev Writes all fields but the status, which `life` has.
    function _write(Record storage record, Life life, Job calldata job) private {
        uint256 blockNumber = life.blockNumberStateChange();
        _setCustomer(record, job.customerAddr);
        record.providerAddr = job.providerAddr;
        _setPacked(record, job.jobName, job.definition);
        life = life.withFlag(LifeWord.CANCEL_REQUESTED, job.hasCancelRequest);
        life = _setExitCode(record, life, job.exitCode);
        life = _setLastError(record, life, job.lastError);
        life = _setTime(record, life, job.time).withBlockNumberStateChange(blockNumber);
        record.life = _setCost(record, life, job.cost);
    }

    /// @dev A job without a customer is none.
    function _setCustomer(Record storage record, address customer) private {
        if (customer == address(0)) revert InvalidJob();
        record.customerAddr = customer;
    }

    /// @dev Bounds alone: what a purchase needs besides is the market's rule.
    function _setPacked(Record storage record, bytes32 jobName, JobDefinition calldata definition) private {
        _bound(definition.storageType, uint8(type(StorageType).max));
        _bound(definition.uses.length + definition.affinity.length, DefinitionCodec.MAX_LABELS);
        _save(record, DefinitionCodec.pack(jobName, definition));
    }

    function _save(Record storage record, bytes memory packed) private {
        _bound(packed.length, DefinitionCodec.MAX_BYTES);
        DefinitionCodec.save(record.packed, packed);
    }

    function _setCost(Record storage record, Life life, JobCost calldata cost) private returns (Life) {
        uint256 panicTimestamp = _panicTimestamp(record, life);
        record.maxCost = cost.maxCost.toUint96();
        record.more.pendingTopUp = cost.pendingTopUp.toUint96();
        life = life.withFlag(LifeWord.MORE, true).withFlag(LifeWord.DELEGATE, cost.delegateSpendingAuthority);
        return _setOdd(record, life, cost.finalCost, panicTimestamp);
    }

    function _setTime(Record storage record, Life life, JobTime calldata time) private returns (Life) {
        uint256 finalCost = _finalCost(record, life);
        life = life.withSubmit(time.submit).withStart(time.start).withEnd(time.end);
        life = life.withCancelRequest(time.cancelRequestTimestamp);
        life = life.withBlockNumberStateChange(time.blockNumberStateChange);
        return _setOdd(record, life, finalCost, time.panicTimestamp);
    }

    /// @dev Keeps what does not follow from the rest.
    function _setOdd(Record storage record, Life life, uint256 finalCost, uint256 panicTimestamp)
        private
        returns (Life)
    {
        life = life.withFlag(LifeWord.ODD, false);
        if (finalCost == _finalCost(record, life) && panicTimestamp == _panicTimestamp(record, life)) return life;
        record.odd = Odd(finalCost.toUint96(), panicTimestamp.toUint32());
        return life.withFlag(LifeWord.ODD, true);
    }

    function _setDelegate(Record storage record, Life life, bool authority, uint256 allowance) private returns (Life) {
        bool capped = allowance != type(uint256).max;
        life = life.withFlag(LifeWord.DELEGATE, authority).withFlag(LifeWord.CAPPED, capped);
        if (!capped) return life;
        _bound(allowance, type(uint96).max);
        // Cannot truncate: bounded.
        // forge-lint: disable-next-line(unsafe-typecast)
        record.more.delegateAllowance = uint96(allowance);
        return life.withFlag(LifeWord.MORE, true);
    }

    /// @dev Cut, never refused: a job must be able to end. Not within a character of UTF-8, which some readers refuse.
    function _setLastError(Record storage record, Life life, string calldata text) private returns (Life) {
        uint256 length = bytes(text).length;
        if (length > MAX_ERROR_BYTES) {
            length = MAX_ERROR_BYTES;
            while (length > 0 && bytes(text)[length] & 0xc0 == 0x80) length--;
        }
        if (length != 0) record.lastError = string(bytes(text)[:length]);
        return life.withFlag(LifeWord.ERROR, length != 0);
    }

    function _setExitCode(Record storage record, Life life, int64 exitCode) private returns (Life) {
        record.more.exitCode = exitCode;
        return life.withFlag(LifeWord.MORE, true);
    }

    function _bound(uint256 value, uint256 highest) private pure {
        if (value > highest) revert OutOfRange(value, 0, highest);
    }
}
