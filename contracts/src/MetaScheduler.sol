// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Constants} from "./Constants.sol";
import {IJobRepository} from "./interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "./interfaces/IProviderJobQueues.sol";
import {IProviderManager} from "./interfaces/IProviderManager.sol";
import {JobRules} from "./libraries/JobRules.sol";
import {Job, JobDefinition, JobState, JobStatus} from "./Types.sol";

/// @title The market: customers buy jobs, the meta-scheduler assigns them, providers run them
/// @notice The entry of the system and the holder of all locked credits. It owns them only on behalf of others: what a
/// job locked leaves it in the transaction that ends the job, to the provider and to the customer, but for the market's
/// share.
/// @dev Every function checks, then writes, then moves credits, last of all. The contracts it calls are the market's
/// own; none of them calls back.
contract MetaScheduler is AccessControl {
    using SafeERC20 for IERC20;

    // --------------------------------------------------------------------------------------------------------- errors

    /// @notice The market takes no new jobs at present.
    error NewJobRequestDisabled();
    /// @notice A job needs tasks, CPUs, memory and a script.
    error InvalidJobDefinition();
    /// @notice The amount is below the minimum, or above the caller's balance or allowance.
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
    /// @notice Only a job that is claimed or runs can be topped up.
    error RunningScheduledStatusOnly(JobStatus current);
    /// @notice A provider reports that a job runs or has ended, nothing else.
    error RunningColdStatusOnly(JobStatus current);
    /// @notice Only a job that waits to be claimed can time out.
    error MetaScheduledStatusOnly(JobStatus current);
    /// @notice The provider may still claim the job until that time.
    error ClaimTimeoutNotReached(uint256 deadline);
    /// @notice The customer has not allowed delegated top-ups.
    error NoSpendingAuthority();
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
    /// @notice The provider reported more minutes than the chain saw; the bound was billed instead.
    event BilledTooMuchEvent(bytes32 _jobId, address _providerAddr, uint256 _billingAmount);

    // ---------------------------------------------------------------------------------------------------------- state

    /// @notice Assigns, tops up and panics jobs.
    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");

    IERC20 public immutable credit;
    Constants public immutable constants;
    IProviderManager public immutable providerManager;
    IProviderJobQueues public immutable providerJobQueues;
    IJobRepository public immutable jobs;

    bool public enableRequestNewJob = true;

    /// @notice The market's share of all bills that the admin has not withdrawn yet.
    uint256 public withdrawable;

    /// @dev The deployer administers the roles; METASCHEDULER_ROLE is granted to the account that schedules.
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
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ------------------------------------------------------------------------------------------------------ customers

    /// @notice The caller buys a job and locks credits for it, out of its allowance. Anybody may.
    function requestNewJob(
        JobDefinition memory _definition,
        uint256 _lockedCredits,
        bytes32 _jobName,
        bool _delegateSpendingAuthority
    ) external returns (bytes32) {
        if (!enableRequestNewJob) revert NewJobRequestDisabled();
        if (!JobRules.isJobDefinitionValid(_definition)) revert InvalidJobDefinition();
        uint256 minimum = constants.minimumAmount();
        if (_lockedCredits < minimum) revert InsufficientFunds(_lockedCredits, minimum);
        _checkFunds(msg.sender, _lockedCredits);

        Job memory job;
        job.customerAddr = msg.sender;
        job.definition = _definition;
        job.cost.maxCost = _lockedCredits;
        job.cost.delegateSpendingAuthority = _delegateSpendingAuthority;
        job.time.submit = block.timestamp;
        job.jobName = _jobName;
        bytes32 jobId = jobs.create(job);
        emit NewJobRequestEvent(jobId, msg.sender);

        credit.safeTransferFrom(msg.sender, address(this), _lockedCredits);
        return jobId;
    }

    /// @notice The customer ends its job: at once while nobody has it, else through its provider. A repeat asks the
    /// provider once more.
    function cancelJob(bytes32 _jobId) external {
        JobState memory job = _customersJob(_jobId);
        if (!job.hasCancelRequest) {
            job.hasCancelRequest = true;
            job.time.cancelRequestTimestamp = block.timestamp;
            jobs.setHasCancelRequest(_jobId, true);
            jobs.setTime(_jobId, job.time);
        }
        if (job.status == JobStatus.PENDING) {
            _end(_jobId, job, JobStatus.CANCELLED, 0);
        } else {
            providerJobQueues.pushCancellingJob(job.providerAddr, _jobId);
        }
    }

    /// @notice The customer locks more credits for its job.
    function topUpJob(bytes32 _jobId, uint256 _amount) external {
        JobState memory job = _customersJob(_jobId);
        _topUp(_jobId, job, _amount);
    }

    /// @notice The customer lets the meta-scheduler top up its job, or no longer.
    function setDelegateSpendingAuthority(bytes32 _jobId, bool _delegateSpendingAuthority) external {
        JobState memory job = _customersJob(_jobId);
        job.cost.delegateSpendingAuthority = _delegateSpendingAuthority;
        jobs.setCost(_jobId, job.cost);
    }

    // -------------------------------------------------------------------------------------------------- meta-scheduler

    /// @notice Assigns a pending job to a provider, at the prices that the provider has now.
    function metaSchedule(bytes32 _jobId, address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (!providerManager.isValidForScheduling(_providerAddr)) revert ProviderNotJoined();
        jobs.setJobStatus(_jobId, JobStatus.META_SCHEDULED);
        jobs.assign(_jobId, _providerAddr, providerManager.getProviderPrices(_providerAddr));
        providerJobQueues.pushClaimableJob(_providerAddr, _jobId);
    }

    /// @notice Locks one more slice of the customer's allowance, if the customer agreed and the job has less than that
    /// left.
    function topUpJobDelegate(bytes32 _jobId) external onlyRole(METASCHEDULER_ROLE) {
        JobState memory job = jobs.getState(_jobId);
        if (!job.cost.delegateSpendingAuthority) revert NoSpendingAuthority();
        if (!JobRules.isTopable(job.status)) revert RunningScheduledStatusOnly(job.status);

        uint256 minuteCost = jobs.costPerMinute(_jobId);
        uint256 limit = constants.topUpSliceDurationMin();
        uint256 remaining = JobRules.remainingMinutes(job.cost.maxCost, minuteCost, job.time.start);
        if (remaining >= limit) revert RemainingTimeAboveLimit(remaining, limit);
        _topUp(_jobId, job, JobRules.costOf(limit, minuteCost));
    }

    /// @notice Ends a job that is lost, at no cost. Only the meta-scheduler and the job's provider, to whose detriment
    /// it is; a customer would escape its bill.
    function panicJob(bytes32 _jobId, string calldata _lastError) external {
        JobState memory job = jobs.getState(_jobId);
        if (!hasRole(METASCHEDULER_ROLE, msg.sender) && msg.sender != job.providerAddr) {
            revert CustomerMetaSchedulerProviderOnly();
        }
        JobRules.checkNewJobStatus(job.status, JobStatus.PANICKED);
        jobs.setLastError(_jobId, _lastError);
        _end(_jobId, job, JobStatus.PANICKED, 0);
    }

    // ------------------------------------------------------------------------------------------------------- providers

    /// @notice The caller takes its next job. A provider that was banned or removed after the assignment hands the job
    /// back instead, so that its queue drains and never blocks it from ending what it runs.
    function claimNextJob() external {
        bytes32 jobId = providerJobQueues.popNextClaimableJob(msg.sender);
        if (!providerManager.isValidForScheduling(msg.sender)) {
            _refuse(jobId, jobs.getState(jobId));
            return;
        }
        jobs.setJobStatus(jobId, JobStatus.SCHEDULED);
        providerManager.incJobCount(msg.sender);

        Job memory job = jobs.get(jobId);
        uint64 maxDuration = JobRules.minutesFor(job.cost.maxCost, jobs.costPerMinute(jobId));
        emit ClaimJobEvent(job.customerAddr, msg.sender, jobId, maxDuration, job.definition);
    }

    /// @notice The job's provider gives it back before it has run.
    function refuseJob(bytes32 _jobId) external {
        JobState memory job = _providersJob(_jobId);
        if (job.status != JobStatus.META_SCHEDULED && job.status != JobStatus.SCHEDULED) {
            revert MetaScheduledScheduledStatusOnly(job.status);
        }
        _refuse(_jobId, job);
    }

    /// @notice The job's provider reports that the job runs, or how it ended and for how many minutes it ran.
    function providerSetJobStatus(
        bytes32 _jobId,
        JobStatus _nextJobStatus,
        uint64 _jobDurationMinute,
        string calldata _lastError,
        int64 _exitCode
    ) external {
        JobState memory job = _providersJob(_jobId);
        JobRules.checkNewJobStatus(job.status, _nextJobStatus);
        if (_nextJobStatus < JobStatus.RUNNING) revert RunningColdStatusOnly(_nextJobStatus);

        if (bytes(_lastError).length != 0) jobs.setLastError(_jobId, _lastError);
        if (_nextJobStatus == JobStatus.RUNNING) {
            job.time.start = block.timestamp;
            jobs.setTime(_jobId, job.time);
            jobs.setJobStatus(_jobId, JobStatus.RUNNING);
        } else {
            jobs.setExitCode(_jobId, _exitCode);
            _end(_jobId, job, _nextJobStatus, _jobDurationMinute);
        }
    }

    /// @notice The caller takes notice of the next job that its customer wants cancelled.
    function claimNextCancellingJob() external {
        bytes32 jobId = providerJobQueues.popNextCancellingJob(msg.sender);
        emit ClaimNextCancellingJobEvent(jobs.getState(jobId).customerAddr, msg.sender, jobId);
    }

    /// @notice The caller takes notice of the next job that has more minutes now.
    function claimNextTopUpJob() external {
        bytes32 jobId = providerJobQueues.popNextTopUpJob(msg.sender);
        JobState memory job = jobs.getState(jobId);
        uint256 minuteCost = jobs.costPerMinute(jobId);
        // Taken as a difference of totals, so that the minutes of many top-ups add up to what all the credits buy.
        uint64 known = JobRules.minutesFor(job.cost.maxCost - job.cost.pendingTopUp, minuteCost);
        uint64 added = JobRules.minutesFor(job.cost.maxCost, minuteCost) - known;

        job.cost.pendingTopUp = 0;
        jobs.setCost(jobId, job.cost);
        emit ClaimNextTopUpJobEvent(jobId, msg.sender, added);
    }

    // -------------------------------------------------------------------------------------------------------- anybody

    /// @notice Sends back a job that its provider has not claimed in time. Anybody may: nobody loses, the job waits no
    /// longer.
    function timeoutJob(bytes32 _jobId) external {
        JobState memory job = jobs.getState(_jobId);
        if (job.status != JobStatus.META_SCHEDULED) revert MetaScheduledStatusOnly(job.status);
        uint256 deadline = jobs.assignedAt(_jobId) + constants.claimJobTimeout();
        if (block.timestamp < deadline) revert ClaimTimeoutNotReached(deadline);
        _release(_jobId, job);
    }

    // ---------------------------------------------------------------------------------------------------------- admin

    /// @notice Opens or closes the market for new jobs; those that exist go on. Only the admin.
    function setEnableRequestNewJob(bool _enable) external onlyRole(DEFAULT_ADMIN_ROLE) {
        enableRequestNewJob = _enable;
    }

    /// @notice Pays the market's share out to the admin who calls: of bills only, never what jobs have locked.
    function withdrawAdmin(uint256 _amount) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_amount > withdrawable) revert InsufficientFunds(withdrawable, _amount);
        withdrawable -= _amount;
        credit.safeTransfer(msg.sender, _amount);
    }

    // ----------------------------------------------------------------------------------------------- private: callers

    /// @dev A hot job of the caller's.
    function _customersJob(bytes32 _jobId) private view returns (JobState memory job) {
        job = jobs.getState(_jobId);
        if (msg.sender != job.customerAddr) revert CustomerOnly(msg.sender, job.customerAddr);
        if (JobRules.isJobCold(job.status)) revert JobRules.JobHotStatusOnly(job.status);
    }

    /// @dev A job assigned to the caller.
    function _providersJob(bytes32 _jobId) private view returns (JobState memory job) {
        job = jobs.getState(_jobId);
        if (msg.sender != job.providerAddr) revert JobProviderOnly(msg.sender, job.providerAddr);
    }

    /// @dev Reverts unless the market can take that much from the customer.
    function _checkFunds(address customer, uint256 amount) private view {
        uint256 available = Math.min(credit.balanceOf(customer), credit.allowance(customer, address(this)));
        if (amount > available) revert InsufficientFunds(available, amount);
    }

    // -------------------------------------------------------------------------------------- private: changes of a job

    function _topUp(bytes32 _jobId, JobState memory job, uint256 amount) private {
        if (!JobRules.isTopable(job.status)) revert RunningScheduledStatusOnly(job.status);
        _checkFunds(job.customerAddr, amount);

        job.cost.maxCost += amount;
        job.cost.pendingTopUp += amount;
        jobs.setCost(_jobId, job.cost);
        providerJobQueues.pushTopUpJob(job.providerAddr, _jobId);

        credit.safeTransferFrom(job.customerAddr, address(this), amount);
    }

    function _refuse(bytes32 _jobId, JobState memory job) private {
        emit JobRefusedEvent(_jobId, job.providerAddr, job.customerAddr);
        _release(_jobId, job);
    }

    /// @dev The job leaves its provider and waits for another; one whose customer wants it cancelled ends here instead.
    function _release(bytes32 _jobId, JobState memory job) private {
        if (job.hasCancelRequest) {
            _end(_jobId, job, JobStatus.CANCELLED, 0);
            return;
        }
        providerJobQueues.removeJob(job.providerAddr, _jobId);
        // The next claim announces all the minutes, so no top-up is pending any more.
        job.cost.pendingTopUp = 0;
        jobs.setCost(_jobId, job.cost);
        jobs.unassign(_jobId);
        jobs.setJobStatus(_jobId, JobStatus.PENDING);
    }

    /// @dev Ends a job: stamps it, bills it, pays the provider, keeps the market's share and refunds the rest.
    function _end(bytes32 _jobId, JobState memory job, JobStatus status, uint256 reportedMinutes) private {
        uint256 cost = _bill(_jobId, job, status, reportedMinutes);
        uint256 share = Math.mulDiv(cost, constants.deepsquareCut(), 100);
        withdrawable += share;

        job.time.end = block.timestamp;
        if (status == JobStatus.PANICKED) job.time.panicTimestamp = block.timestamp;
        job.cost.finalCost = cost;
        job.cost.pendingTopUp = 0;
        jobs.setTime(_jobId, job.time);
        jobs.setCost(_jobId, job.cost);
        jobs.setJobStatus(_jobId, status);
        if (job.providerAddr != address(0)) providerJobQueues.removeJob(job.providerAddr, _jobId);

        _pay(job.providerAddr, cost - share);
        _pay(job.customerAddr, job.cost.maxCost - cost);
    }

    /// @dev What a job costs that ends now. Bounded twice: by the time that the chain saw, and by what is locked.
    function _bill(bytes32 _jobId, JobState memory job, JobStatus status, uint256 billed)
        private
        returns (uint256 cost)
    {
        if (job.time.start == 0 || status == JobStatus.PANICKED) return 0;

        uint256 bound = Math.saturatingAdd(JobRules.startedMinutes(job.time.start), constants.billDurationDeltaMinute());
        bool tooMuch = billed > bound;
        if (tooMuch) billed = bound;
        if (status == JobStatus.CANCELLED && job.hasCancelRequest) {
            billed = Math.max(billed, constants.cancellationFeeMinute());
        }
        cost = Math.min(JobRules.costOf(billed, jobs.costPerMinute(_jobId)), job.cost.maxCost);
        if (tooMuch) emit BilledTooMuchEvent(_jobId, job.providerAddr, cost);
    }

    function _pay(address to, uint256 amount) private {
        if (amount != 0) credit.safeTransfer(to, amount);
    }
}
