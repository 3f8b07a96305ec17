// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Constants} from "./Constants.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "./interfaces/IProviderJobQueues.sol";
import {IProviderManager} from "./interfaces/IProviderManager.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {JobState, LifeWord} from "./Life.sol";
import {MarketCore} from "./MarketCore.sol";
import {
    Assignment,
    JobDefinition,
    JobReport,
    JobRequest,
    JobStatus,
    OutOfRange,
    QueueKind,
    Settings
} from "./Types.sol";

/// @title The market: customers buy jobs, the meta-scheduler assigns them, providers run them
/// @notice The entry of the system and the holder of all locked credits. It owns them only on behalf of others: what a
/// job locked leaves it in the transaction that ends the job, to the provider and to the customer, but for the market's
/// share.
contract MetaScheduler is MarketCore, AccessControl {
    using SafeCast for uint256;

    /// @notice The market was opened for new jobs, or closed.
    event RequestNewJobEnabled(bool enabled);
    /// @notice The admin took of the market's share.
    event AdminWithdrawal(address indexed admin, uint256 amount);

    /// @notice The functions that this market has beside DeepSquare's of version 1.2: all of them.
    uint256 public constant EXTENSIONS = 2;
    /// @notice Assigns, tops up and panics jobs.
    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");

    /// @dev The deployer administers the roles; METASCHEDULER_ROLE is granted to the account that schedules.
    constructor(
        IERC20 _credit,
        Constants _constants,
        IProviderManager _providerManager,
        IProviderJobQueues _providerJobQueues,
        IJobRepository _jobs
    ) MarketCore(_credit, _constants, _providerManager, _providerJobQueues, _jobs) {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ------------------------------------------------------------------------------------------------------ customers

    /// @notice The caller buys a job and locks credits for it, out of its allowance. Anybody may.
    function requestNewJob(
        JobDefinition calldata _definition,
        uint256 _lockedCredits,
        bytes32 _jobName,
        bool _delegateSpendingAuthority
    ) external returns (bytes32 jobId) {
        if (!enableRequestNewJob) revert NewJobRequestDisabled();
        _checkAmount(_lockedCredits, constants.minimumAmount(), 0);
        jobId = _open(_definition, _lockedCredits, _jobName, _delegateSpendingAuthority, type(uint256).max);
        _lock(_lockedCredits);
    }

    /// @notice The caller buys many jobs at once, all or none.
    /// @return jobIds The jobs, in the order of the requests; where the caller used a request's key before, the job
    /// that it bought then.
    function requestNewJobs(JobRequest[] calldata requests) external returns (bytes32[] memory jobIds) {
        return _openMany(requests);
    }

    /// @notice The same, with the allowance given by a signature of the caller (EIP-2612) instead of a transaction.
    /// @dev Whoever saw the signature can have used it before: then the allowance is there, and that is what counts.
    function requestNewJobsWithPermit(
        JobRequest[] calldata requests,
        uint256 value,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32[] memory jobIds) {
        try IERC20Permit(address(credit)).permit(msg.sender, address(this), value, deadline, v, r, s) {} catch {}
        return _openMany(requests);
    }

    /// @notice The customer ends its job: at once while nobody has it, else through its provider. A repeat asks the
    /// provider once more, if it has taken notice of the request before.
    function cancelJob(bytes32 _jobId) external {
        JobState memory job = _customersJob(_jobId);
        jobs.requestCancel(_jobId);
        emit JobCancelRequested(_jobId, job.customerAddr, job.providerAddr);
        if (job.life.status() == JobStatus.PENDING) _cancelFree(_jobId, job, false);
        else if (!job.life.has(LifeWord.IN_CANCELLING_QUEUE)) _queue(_jobId, job, QueueKind.CANCELLING);
    }

    /// @notice The caller locks more of its credits for a job, at least a minute's worth. Anybody may; what is not used
    /// goes to the job's customer.
    function topUpJob(bytes32 _jobId, uint256 _amount) external {
        _topUp(_jobId, jobs.getState(_jobId), msg.sender, _amount, false);
    }

    /// @notice The customer lets the meta-scheduler top up its job, or no longer. A cap stays as it is.
    function setDelegateSpendingAuthority(bytes32 _jobId, bool _delegateSpendingAuthority) external {
        _customersJob(_jobId);
        _setDelegate(_jobId, _delegateSpendingAuthority, jobs.delegateAllowance(_jobId));
    }

    /// @notice The customer bounds what delegated top-ups may add from now on; the largest number: only its allowance
    /// bounds them.
    function setDelegateSpendingCap(bytes32 _jobId, uint256 _cap) external {
        JobState memory job = _customersJob(_jobId);
        _setDelegate(_jobId, job.life.has(LifeWord.DELEGATE), _cap);
    }

    // -------------------------------------------------------------------------------------------------- meta-scheduler

    /// @notice Assigns a pending job to a provider, at the prices that the provider has now. Credits that would not buy
    /// a minute are refused.
    function metaSchedule(bytes32 _jobId, address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        _assign(_jobId, _providerAddr);
    }

    /// @notice Assigns many jobs. Leaves out what is not PENDING any more, a provider that may have nothing new or asks
    /// for more than expected, and credits that would not buy a minute.
    function metaScheduleMany(Assignment[] calldata _assignments) external onlyRole(METASCHEDULER_ROLE) {
        _assignMany(_assignments);
    }

    /// @notice Locks one more slice of the customer's allowance, or what is left of the cap if that is less; if the
    /// customer agreed and the job has less than a slice left.
    function topUpJobDelegate(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) {
        JobState memory job = jobs.getState(_jobId);
        if (!job.life.has(LifeWord.DELEGATE)) revert NoSpendingAuthority();
        _checkTopable(job.life.status());

        uint256 limit = constants.topUpSliceDurationMin();
        uint256 remaining = JobRules.remainingMinutes(job.maxCost, job.costPerMinute, job.life.start());
        if (remaining >= limit) revert RemainingTimeAboveLimit(remaining, limit);
        uint256 slice = JobRules.costOf(limit, job.costPerMinute);
        slice = Math.min(slice, jobs.delegateAllowance(_jobId));
        if (slice < job.costPerMinute) revert DelegateCapReached(slice, job.costPerMinute);
        _topUp(_jobId, job, job.customerAddr, slice, true);
    }

    // ------------------------------------------------------------------------------------------------------- providers

    /// @notice The caller takes its next job. One that may have nothing new any more hands the job back instead.
    function claimNextJob() external {
        _claim(1);
    }

    /// @notice The caller takes up to `_count` jobs.
    function claimNextJobs(uint256 _count) external {
        _claim(_count);
    }

    /// @notice The job's provider gives it back before it has run.
    function refuseJob(bytes32 _jobId) external {
        JobState memory job = _providersJob(_jobId);
        if (job.life.status() != JobStatus.META_SCHEDULED && job.life.status() != JobStatus.SCHEDULED) {
            revert MetaScheduledScheduledStatusOnly(job.life.status());
        }
        _refuse(_jobId, job, false);
    }

    /// @notice The job's provider reports that the job runs, or how it ended and for how many started minutes it ran.
    function providerSetJobStatus(
        bytes32 _jobId,
        uint8 _nextJobStatus,
        uint64 _jobDurationMinute,
        string calldata _lastError,
        int64 _exitCode
    ) external {
        _report(_jobId, _nextJobStatus, uint256(_jobDurationMinute) * 1 minutes, 1 minutes, _lastError, _exitCode);
    }

    /// @notice The same with the seconds that the job ran, which alone are billed.
    function providerSetJobStatusSecond(
        bytes32 _jobId,
        uint8 _nextJobStatus,
        uint64 _jobDurationSecond,
        string calldata _lastError,
        int64 _exitCode
    ) external {
        _report(_jobId, _nextJobStatus, _jobDurationSecond, 1 seconds, _lastError, _exitCode);
    }

    /// @notice The caller reports on many of its jobs, in seconds. Leaves out what is another's or nobody's, and what
    /// the job's status does not allow any more.
    function providerSetJobStatuses(JobReport[] calldata _reports) external {
        Settings memory settings = constants.all();
        Earnings memory earned;
        for (uint256 i = 0; i < _reports.length; i++) {
            JobReport calldata report = _reports[i];
            JobStatus next = _jobStatus(report.status);
            JobState memory job = _stateIfAny(report.jobId);
            if (
                msg.sender != job.providerAddr || next < JobStatus.RUNNING
                    || !JobRules.isAllowed(job.life.status(), next)
            ) {
                continue;
            }
            _apply(
                Report(report.jobId, next, report.durationSecond, 1 seconds, report.exitCode),
                report.lastError,
                job,
                settings,
                earned
            );
        }
        _settle(msg.sender, earned);
    }

    /// @notice The caller takes notice of the next job that its customer wants cancelled.
    function claimNextCancellingJob() external {
        _noticeCancels(1);
    }

    /// @notice The caller takes notice of up to `_count` such jobs.
    function claimNextCancellingJobs(uint256 _count) external {
        _noticeCancels(_count);
    }

    /// @notice The caller takes notice of the next job that has more minutes now.
    function claimNextTopUpJob() external {
        _noticeTopUps(1);
    }

    /// @notice The caller takes notice of up to `_count` such jobs.
    function claimNextTopUpJobs(uint256 _count) external {
        _noticeTopUps(_count);
    }

    // ------------------------------------------------------------------------------------------------ several parties

    /// @notice Ends a job that is lost, as PANICKED.
    /// - The meta-scheduler and the job's provider may at any time, at no cost.
    /// - The customer may at no cost before a provider has the job. While it runs it is billed as if it was cancelled:
    /// the time that the chain saw, at least the fee.
    /// - Anybody may, at no cost to the customer, where the provider of a running job is silent past the time that is
    ///   paid for and the delta, or where it did not answer a cancel request of a job that it took, in the time that it
    ///   would have to claim one.
    function panicJob(bytes32 _jobId, string calldata _lastError) external {
        JobState memory job = jobs.getState(_jobId);
        JobRules.checkNewJobStatus(job.life.status(), JobStatus.PANICKED);
        Settings memory settings = constants.all();
        uint256 billed = _panicBill(job, settings);

        // A stranger may end what was forgotten, but has nothing to say about it.
        bool party = msg.sender == job.customerAddr || _mayPanic(job);
        if (party && bytes(_lastError).length != 0) jobs.setLastError(_jobId, _lastError);
        Earnings memory earned;
        _end(_jobId, job, JobStatus.PANICKED, billed, 0, settings.deepsquareCut, earned);
        _settle(job.providerAddr, earned);
    }

    /// @notice Sends back a job that its provider has not claimed in time. Anybody may: nobody loses, the job waits no
    /// longer.
    function timeoutJob(bytes32 _jobId) external {
        JobState memory job = jobs.getState(_jobId);
        if (job.life.status() != JobStatus.META_SCHEDULED) revert MetaScheduledStatusOnly(job.life.status());
        uint256 deadline = job.life.assignedAt() + constants.claimJobTimeout();
        if (block.timestamp < deadline) revert ClaimTimeoutNotReached(deadline);
        _release(_jobId, job, false);
    }

    // ---------------------------------------------------------------------------------------------------------- admin

    /// @notice Opens or closes the market for new jobs; those that exist go on, end, and are refunded. Only the admin.
    function setEnableRequestNewJob(bool _enable) external onlyRole(DEFAULT_ADMIN_ROLE) {
        enableRequestNewJob = _enable;
        emit RequestNewJobEnabled(_enable);
    }

    /// @notice Pays the market's share out to the admin who calls: of bills only, never what jobs have locked.
    function withdrawAdmin(uint256 _amount) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_amount > _withdrawable) revert InsufficientFunds(_withdrawable, _amount);
        _withdrawable -= _amount.toUint128();
        emit AdminWithdrawal(msg.sender, _amount);
        _pay(msg.sender, _amount);
    }

    // --------------------------------------------------------------------------------------------------------- private

    /// @dev A provider's report; `unit` is 60 where the duration is in started minutes, else 1.
    struct Report {
        bytes32 jobId;
        JobStatus next;
        uint256 durationSecond;
        uint256 unit;
        int64 exitCode;
    }

    /// @dev Zeros for an unknown id.
    function _stateIfAny(bytes32 _jobId) private view returns (JobState memory job) {
        try jobs.getState(_jobId) returns (JobState memory found) {
            return found;
        } catch (bytes memory reason) {
            _requireReason(reason);
        }
    }

    function _report(
        bytes32 _jobId,
        uint8 _nextJobStatus,
        uint256 durationSecond,
        uint256 unit,
        string calldata _lastError,
        int64 _exitCode
    ) private {
        JobStatus next = _jobStatus(_nextJobStatus);
        JobState memory job = _providersJob(_jobId);
        JobRules.checkNewJobStatus(job.life.status(), next);
        if (next < JobStatus.RUNNING) revert RunningColdStatusOnly(next);
        Settings memory settings;
        if (next != JobStatus.RUNNING) settings = constants.all();
        Earnings memory earned;
        _apply(Report(_jobId, next, durationSecond, unit, _exitCode), _lastError, job, settings, earned);
        _settle(msg.sender, earned);
    }

    function _apply(
        Report memory report,
        string calldata _lastError,
        JobState memory job,
        Settings memory settings,
        Earnings memory earned
    ) private {
        if (bytes(_lastError).length != 0) jobs.setLastError(report.jobId, _lastError);
        if (report.next == JobStatus.RUNNING) {
            jobs.start(report.jobId);
            return;
        }
        (uint256 billed, bool tooMuch) = _billable(job, report.next, report.durationSecond, report.unit, settings);
        uint256 cost = _end(report.jobId, job, report.next, billed, report.exitCode, settings.deepsquareCut, earned);
        if (tooMuch) emit BilledTooMuchEvent(report.jobId, msg.sender, cost);
    }

    /// @dev Whether the caller may panic a job at any time.
    function _mayPanic(JobState memory job) private view returns (bool) {
        return msg.sender == job.providerAddr || hasRole(METASCHEDULER_ROLE, msg.sender);
    }

    /// @dev The seconds that the caller's panic of a job bills; reverts if it may not.
    function _panicBill(JobState memory job, Settings memory settings) private view returns (uint256 billed) {
        if (_mayPanic(job)) return 0;
        bool customer = msg.sender == job.customerAddr;
        if (customer && job.life.status() < JobStatus.SCHEDULED) return 0;

        uint256 deadline = type(uint256).max;
        if (job.life.status() == JobStatus.RUNNING) {
            deadline = _lastBilledSecond(job, settings);
        } else if (job.life.status() == JobStatus.SCHEDULED && job.life.has(LifeWord.CANCEL_REQUESTED)) {
            deadline = Math.max(job.life.cancelRequest(), job.life.clock()) + settings.claimJobTimeout;
        }
        if (block.timestamp > deadline) return 0;
        if (!customer) revert CustomerMetaSchedulerProviderOnly();
        if (job.life.status() != JobStatus.RUNNING) revert ProviderInTime(deadline);
        return _cancelBill(job, settings);
    }

    /// @dev A hot job of the caller's.
    function _customersJob(bytes32 _jobId) private view returns (JobState memory job) {
        job = jobs.getState(_jobId);
        if (msg.sender != job.customerAddr) revert CustomerOnly(msg.sender, job.customerAddr);
        if (JobRules.isJobCold(job.life.status())) revert JobRules.JobHotStatusOnly(job.life.status());
    }

    /// @dev A job assigned to the caller.
    function _providersJob(bytes32 _jobId) private view returns (JobState memory job) {
        job = jobs.getState(_jobId);
        if (msg.sender != job.providerAddr) revert JobProviderOnly(msg.sender, job.providerAddr);
    }

    function _setDelegate(bytes32 _jobId, bool authority, uint256 allowance) private {
        jobs.setDelegate(_jobId, authority, allowance);
        emit DelegateSpendingChanged(_jobId, authority, allowance);
    }

    function _jobStatus(uint8 number) private pure returns (JobStatus) {
        if (number > uint8(type(JobStatus).max)) revert OutOfRange(number, 0, uint8(type(JobStatus).max));
        return JobStatus(number);
    }
}
