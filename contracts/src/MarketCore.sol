// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Constants} from "./Constants.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "./interfaces/IProviderJobQueues.sol";
import {IProviderManager} from "./interfaces/IProviderManager.sol";
import {JobState, LifeWord} from "./Life.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {
    Assignment,
    JobDefinition,
    JobRequest,
    JobStatus,
    OutOfRange,
    ProviderPrices,
    QueueKind,
    Settings
} from "./Types.sol";

/// @title The steps of the market, each of which MetaScheduler offers for one job and for many
/// @dev A job's record is written before its credits move, so that a credit that calls back finds every job as it is;
/// what does not come in undoes the whole. The other contracts are the market's own, and none of them calls back.
abstract contract MarketCore {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    // --------------------------------------------------------------------------------------------------------- errors

    /// @notice The market takes no new jobs at present.
    error NewJobRequestDisabled();
    /// @notice A job needs tasks, CPUs, memory and a script, and few labels.
    error InvalidJobDefinition();
    /// @notice The amount is below the least that makes sense, or above the caller's balance or allowance.
    error InsufficientFunds(uint256 available, uint256 required);
    /// @notice The job is another customer's.
    error CustomerOnly(address current, address expected);
    /// @notice The job is another provider's, or no provider's.
    error JobProviderOnly(address current, address expected);
    /// @notice The caller has no part in the job that would let it do this.
    error CustomerMetaSchedulerProviderOnly();
    /// @notice The provider is not joined, or banned.
    error ProviderNotJoined();
    /// @notice Only a job that has not run can be refused.
    error MetaScheduledScheduledStatusOnly(JobStatus current);
    /// @notice A provider reports that a job runs or has ended, nothing else.
    error RunningColdStatusOnly(JobStatus current);
    /// @notice Only a job that waits to be claimed can time out.
    error MetaScheduledStatusOnly(JobStatus current);
    /// @notice The provider may still claim the job until that time.
    error ClaimTimeoutNotReached(uint256 deadline);
    /// @notice The provider may still answer until that time; the largest number: as long as it likes.
    error ProviderInTime(uint256 deadline);
    /// @notice The customer has not allowed delegated top-ups.
    error NoSpendingAuthority();
    /// @notice Delegated top-ups have added all that the customer allowed, but for less than a minute's worth.
    error DelegateCapReached(uint256 left, uint256 minuteCost);
    /// @notice The transaction was given too little gas.
    error OutOfGas();
    /// @notice The job has enough minutes left.
    error RemainingTimeAboveLimit(uint256 remaining, uint256 limit);

    // --------------------------------------------------------------------------------------------------------- events

    /// @notice A customer bought a job.
    event NewJobRequestEvent(bytes32 _jobId, address _customerAddr);
    /// @notice A provider took a job, with the minutes that its credits buy in all.
    event ClaimJobEvent(
        address customerAddr, address providerAddr, bytes32 jobId, uint64 maxDurationMinute, JobDefinition jobDefinition
    );
    /// @notice A provider took notice that the customer wants the job cancelled.
    event ClaimNextCancellingJobEvent(address customerAddr, address providerAddr, bytes32 jobId);
    /// @notice The minutes that were added since the provider last heard.
    event ClaimNextTopUpJobEvent(bytes32 _jobId, address _providerAddr, uint64 maxDurationMinute);
    /// @notice A provider gave a job back.
    event JobRefusedEvent(bytes32 _jobId, address _providerAddr, address _customerAddr);
    /// @notice The provider reported more time than the chain saw; the bound was billed instead.
    event BilledTooMuchEvent(bytes32 _jobId, address _providerAddr, uint256 _billingAmount);
    /// @notice The customer wants the job cancelled; its provider, if it has one, is to end it.
    event JobCancelRequested(bytes32 indexed jobId, address indexed customer, address indexed provider);
    /// @notice What delegated top-ups may do for a job (the largest number: no cap); told of a purchase that allows or
    /// caps them, and of each change.
    event DelegateSpendingChanged(bytes32 indexed jobId, bool authority, uint256 allowance);
    /// @notice A provider took notice of a cancel request or of top-ups.
    event NoticeTaken(bytes32 indexed jobId, address indexed provider, QueueKind kind);
    /// @notice Credits were added to a job.
    event JobToppedUp(bytes32 indexed jobId, address indexed payer, address indexed provider, uint256 amount);

    // ---------------------------------------------------------------------------------------------------------- state

    IERC20 public immutable credit;
    Constants public immutable constants;
    IProviderManager public immutable providerManager;
    IProviderJobQueues public immutable providerJobQueues;
    IJobRepository public immutable jobs;

    /// @notice Whether new jobs can be bought.
    bool public enableRequestNewJob = true;
    /// @dev The market's share of all bills that the admin has not withdrawn yet.
    uint128 internal _withdrawable;

    mapping(address customer => mapping(bytes32 key => bytes32 jobId)) private _jobOfKey;

    /// @dev What a provider earned in a transaction, and what of it is the market's.
    struct Earnings {
        uint256 bills;
        uint256 shares;
    }

    constructor(
        IERC20 _credit,
        Constants _constants,
        IProviderManager _providerManager,
        IProviderJobQueues _providerJobQueues,
        IJobRepository _jobs
    ) {
        credit = _credit;
        constants = _constants;
        providerManager = _providerManager;
        providerJobQueues = _providerJobQueues;
        jobs = _jobs;
    }

    // ------------------------------------------------------------------------------------------------------- reads

    /// @notice The market's share of all bills that the admin has not withdrawn yet.
    function withdrawable() external view returns (uint256) {
        return _withdrawable;
    }

    /// @notice The job that a customer bought under a key; 0 if it bought none.
    function jobOfKey(address customer, bytes32 key) public view returns (bytes32) {
        return _jobOfKey[customer][key];
    }

    // ----------------------------------------------------------------------------------------------------- a purchase

    /// @dev Credits to lock for a job that has locked some before: at least so many, in all at most what its record
    /// holds.
    function _checkAmount(uint256 amount, uint256 least, uint256 lockedBefore) internal pure {
        if (amount < least) revert InsufficientFunds(amount, least);
        uint256 most = type(uint96).max - lockedBefore;
        if (amount > most) revert OutOfRange(amount, least, most);
    }

    /// @dev Takes what jobs lock, all at once.
    function _lock(uint256 amount) internal {
        if (amount != 0) _collect(msg.sender, amount);
    }

    /// @dev Takes credits of an account that allowed it; asks why not only if they can't be had.
    function _collect(address payer, uint256 amount) private {
        if (credit.trySafeTransferFrom(payer, address(this), amount)) return;
        revert InsufficientFunds(Math.min(credit.balanceOf(payer), credit.allowance(payer, address(this))), amount);
    }

    /// @dev Records a job.
    function _open(
        JobDefinition calldata definition,
        uint256 lockedCredits,
        bytes32 jobName,
        bool delegateSpendingAuthority,
        uint256 delegateCap
    ) internal returns (bytes32 jobId) {
        (bool valid, bytes memory packed) = JobRules.checkDefinition(jobName, definition);
        if (!valid) revert InvalidJobDefinition();
        jobId = jobs.open(msg.sender, lockedCredits, delegateSpendingAuthority, delegateCap, packed);
        emit NewJobRequestEvent(jobId, msg.sender);
        if (delegateSpendingAuthority || delegateCap != type(uint256).max) {
            emit DelegateSpendingChanged(jobId, delegateSpendingAuthority, delegateCap);
        }
    }

    /// @dev Buys many jobs, all or none. A key that was used before, also earlier in the list, buys nothing: then it
    /// doesn't matter whether the market sells.
    function _openMany(JobRequest[] calldata requests) internal returns (bytes32[] memory jobIds) {
        bool sells = enableRequestNewJob;
        uint256 minimum = constants.minimumAmount();
        uint256 total;
        jobIds = new bytes32[](requests.length);
        for (uint256 i = 0; i < requests.length; i++) {
            JobRequest calldata request = requests[i];
            if (request.key != 0) jobIds[i] = jobOfKey(msg.sender, request.key);
            if (jobIds[i] != 0) continue;
            if (!sells) revert NewJobRequestDisabled();
            uint256 locked = request.lockedCredits;
            _checkAmount(locked, minimum, 0);
            total += locked;
            jobIds[i] = _open(
                request.definition, locked, request.jobName, request.delegateSpendingAuthority, request.delegateCap
            );
            if (request.key != 0) _jobOfKey[msg.sender][request.key] = jobIds[i];
        }
        _lock(total);
    }

    // -------------------------------------------------------------------------------------------------- an assignment

    /// @dev Assigns a pending job at the prices that the provider has now.
    function _assign(bytes32 _jobId, address _providerAddr) internal {
        (bool valid, ProviderPrices memory prices) = providerManager.getOffer(_providerAddr);
        if (!valid) revert ProviderNotJoined();
        (bool assigned, uint256 minuteCost, uint16 assignments) =
            jobs.assign(_jobId, _providerAddr, prices, type(uint256).max);
        if (!assigned) revert InsufficientFunds(jobs.getState(_jobId).maxCost, minuteCost);
        providerJobQueues.push(_providerAddr, QueueKind.CLAIMABLE, _jobId, assignments);
    }

    /// @dev Assigns many jobs; leaves out those that can't be assigned (any more), or not at the price expected.
    function _assignMany(Assignment[] calldata list) internal {
        address known;
        bool valid;
        ProviderPrices memory prices;
        for (uint256 i = 0; i < list.length; i++) {
            Assignment calldata wanted = list[i];
            if (wanted.provider != known) {
                known = wanted.provider;
                (valid, prices) = providerManager.getOffer(known);
            }
            if (!valid) continue;
            try jobs.assign(wanted.jobId, known, prices, wanted.mostPerMinute) returns (
                bool assigned, uint256, uint16 assignments
            ) {
                if (assigned) providerJobQueues.push(known, QueueKind.CLAIMABLE, wanted.jobId, assignments);
            } catch (bytes memory reason) {
                _requireReason(reason);
            }
        }
    }

    /// @dev What was called and gave no reason ran out of gas: then so shall the whole.
    function _requireReason(bytes memory reason) internal pure {
        if (reason.length == 0) revert OutOfGas();
    }

    /// @dev The caller takes up to `count` jobs. A provider that was banned or removed after the assignment hands them
    /// back instead, so that its queue drains and never blocks it from ending what it runs.
    function _claim(uint256 count) internal {
        bytes32[] memory jobIds = providerJobQueues.pop(msg.sender, QueueKind.CLAIMABLE, count);
        if (jobIds.length == 0) return;
        bool valid = providerManager.countClaims(msg.sender, jobIds.length.toUint64());
        for (uint256 i = 0; i < jobIds.length; i++) {
            if (valid) _take(jobIds[i]);
            else _refuse(jobIds[i], jobs.getState(jobIds[i]), true);
        }
    }

    function _take(bytes32 _jobId) private {
        (JobState memory job, bytes memory definition) = jobs.claim(_jobId);
        // Who took notice of a cancel request before it had the job is told once more.
        if (job.life.has(LifeWord.CANCEL_REQUESTED) && !job.life.has(LifeWord.IN_CANCELLING_QUEUE)) {
            jobs.requestCancel(_jobId);
            _queue(_jobId, job, QueueKind.CANCELLING);
        }
        uint64 maxDuration = JobRules.minutesFor(job.maxCost, job.costPerMinute);
        // ClaimJobEvent, of which the definition comes encoded: its offset is the five words before it.
        bytes memory data = bytes.concat(
            abi.encode(job.customerAddr, msg.sender, _jobId, maxDuration, 5 * 32), _withoutOffset(definition)
        );
        bytes32 topic = ClaimJobEvent.selector;
        assembly ("memory-safe") {
            log1(add(data, 32), mload(data), topic)
        }
    }

    /// @dev What abi.encode gives for one value of a dynamic type, without the word in front. Shortens it in place.
    function _withoutOffset(bytes memory encoded) private pure returns (bytes memory value) {
        assembly ("memory-safe") {
            value := add(encoded, 32)
            mstore(value, sub(mload(encoded), 32))
        }
    }

    /// @dev A job goes back from its provider.
    /// @param popped Whether it was taken out of the queue of claimable jobs before.
    function _refuse(bytes32 _jobId, JobState memory job, bool popped) internal {
        emit JobRefusedEvent(_jobId, job.providerAddr, job.customerAddr);
        _release(_jobId, job, popped);
    }

    /// @dev The job leaves its provider and waits for another; one whose customer wants it cancelled ends here instead.
    /// @param popped As _refuse.
    function _release(bytes32 _jobId, JobState memory job, bool popped) internal {
        if (job.life.has(LifeWord.CANCEL_REQUESTED)) return _cancelFree(_jobId, job, popped);
        _leaveQueues(job, popped);
        jobs.release(_jobId);
    }

    /// @dev Ends a job that has not run as CANCELLED, all refunded.
    /// @param popped As _refuse.
    function _cancelFree(bytes32 _jobId, JobState memory job, bool popped) internal {
        _leaveQueues(job, popped);
        jobs.end(_jobId, JobStatus.CANCELLED, 0, 0);
        _pay(job.customerAddr, job.maxCost);
    }

    function _queue(bytes32 _jobId, JobState memory job, QueueKind kind) internal {
        providerJobQueues.push(job.providerAddr, kind, _jobId, job.life.assignments());
    }

    /// @dev Counts a job out of its provider's queues.
    function _leaveQueues(JobState memory job, bool popped) private {
        if (job.life.status() == JobStatus.META_SCHEDULED && !popped) {
            providerJobQueues.drop(job.providerAddr, QueueKind.CLAIMABLE);
        }
        if (job.life.has(LifeWord.IN_CANCELLING_QUEUE)) providerJobQueues.drop(job.providerAddr, QueueKind.CANCELLING);
        if (job.life.has(LifeWord.IN_TOP_UP_QUEUE)) providerJobQueues.drop(job.providerAddr, QueueKind.TOP_UP);
    }

    // ------------------------------------------------------------------------------------------------------- news

    /// @dev The caller takes notice of up to `count` cancel requests.
    function _noticeCancels(uint256 count) internal {
        bytes32[] memory jobIds = providerJobQueues.pop(msg.sender, QueueKind.CANCELLING, count);
        for (uint256 i = 0; i < jobIds.length; i++) {
            emit ClaimNextCancellingJobEvent(jobs.noticeCancel(jobIds[i]), msg.sender, jobIds[i]);
            emit NoticeTaken(jobIds[i], msg.sender, QueueKind.CANCELLING);
        }
    }

    /// @dev The caller takes notice of up to `count` jobs with more minutes.
    function _noticeTopUps(uint256 count) internal {
        bytes32[] memory jobIds = providerJobQueues.pop(msg.sender, QueueKind.TOP_UP, count);
        for (uint256 i = 0; i < jobIds.length; i++) {
            (JobState memory job, uint256 pendingTopUp) = jobs.noticeTopUp(jobIds[i]);
            // A difference of totals, so that the minutes of many top-ups add up to what all the credits buy.
            uint64 known = JobRules.minutesFor(job.maxCost - pendingTopUp, job.costPerMinute);
            uint64 added = JobRules.minutesFor(job.maxCost, job.costPerMinute) - known;
            emit ClaimNextTopUpJobEvent(jobIds[i], msg.sender, added);
            emit NoticeTaken(jobIds[i], msg.sender, QueueKind.TOP_UP);
        }
    }

    // ------------------------------------------------------------------------------------------------------ top-ups

    function _checkTopable(JobStatus status) internal pure {
        if (JobRules.isJobCold(status)) revert JobRules.JobHotStatusOnly(status);
        if (!JobRules.isTopable(status)) revert JobRules.RunningScheduledStatusOnly(status);
    }

    /// @dev Takes credits of `payer` for a job, at least a minute's worth: nobody can busy a provider for nothing.
    function _topUp(bytes32 _jobId, JobState memory job, address payer, uint256 amount, bool delegated) internal {
        _checkTopable(job.life.status());
        _checkAmount(amount, Math.max(job.costPerMinute, 1), job.maxCost);
        jobs.addCredits(_jobId, amount, delegated);
        if (!job.life.has(LifeWord.IN_TOP_UP_QUEUE)) _queue(_jobId, job, QueueKind.TOP_UP);
        emit JobToppedUp(_jobId, payer, job.providerAddr, amount);
        _collect(payer, amount);
    }

    // ------------------------------------------------------------------------------------------------------ an end

    /// @dev Ends a job: stamps it, bills it, keeps the market's share and refunds the rest. What its provider earned is
    /// added to `earned`, for the caller to pay once.
    function _end(
        bytes32 _jobId,
        JobState memory job,
        JobStatus status,
        uint256 billedSecond,
        int64 exitCode,
        uint256 cut,
        Earnings memory earned
    ) internal returns (uint256 cost) {
        _leaveQueues(job, false);
        cost = jobs.end(_jobId, status, billedSecond, exitCode);
        earned.bills += cost;
        earned.shares += cost * cut / 100;
        _pay(job.customerAddr, job.maxCost - cost);
    }

    /// @dev Pays a provider, and keeps the market's share.
    function _settle(address provider, Earnings memory earned) internal {
        if (earned.bills == 0) return;
        if (earned.shares != 0) _withdrawable += earned.shares.toUint128();
        _pay(provider, earned.bills - earned.shares);
    }

    function _pay(address to, uint256 amount) internal {
        if (amount != 0) credit.safeTransfer(to, amount);
    }

    /// @dev The seconds to bill for a reported duration: at most what the chain saw and the delta.
    /// @param unit 1 where the duration is exact, 60 where it is in started minutes.
    function _billable(
        JobState memory job,
        JobStatus status,
        uint256 durationSecond,
        uint256 unit,
        Settings memory settings
    ) internal view returns (uint256 billed, bool tooMuch) {
        if (job.life.start() == 0 || status == JobStatus.PANICKED) return (0, false);
        uint256 seen = Math.ceilDiv(block.timestamp - job.life.start(), unit) * unit;
        uint256 bound = seen + uint256(settings.billDurationDeltaMinute) * 1 minutes;
        tooMuch = durationSecond > bound;
        billed = tooMuch ? bound : durationSecond;
        if (status == JobStatus.CANCELLED && job.life.has(LifeWord.CANCEL_REQUESTED)) {
            billed = Math.max(billed, uint256(settings.cancellationFeeMinute) * 1 minutes);
        }
    }

    /// @dev The seconds to bill where a customer ends a running job: what the chain saw, at least the fee.
    function _cancelBill(JobState memory job, Settings memory settings) internal view returns (uint256) {
        return Math.max(block.timestamp - job.life.start(), uint256(settings.cancellationFeeMinute) * 1 minutes);
    }

    /// @dev Until when the provider of a running job may be silent: what is paid for, and the delta, from its start on.
    function _lastBilledSecond(JobState memory job, Settings memory settings) internal pure returns (uint256) {
        if (job.costPerMinute == 0) return type(uint256).max;
        uint256 paid = job.maxCost * 1 minutes / job.costPerMinute;
        return job.life.start() + paid + uint256(settings.billDurationDeltaMinute) * 1 minutes;
    }
}
