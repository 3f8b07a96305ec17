// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {MarketCore} from "../src/MarketCore.sol";
import {MetaScheduler} from "../src/MetaScheduler.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import {MarketTest} from "./utils/Market.sol";
import {Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice Never comes to an end.
contract Greedy {
    fallback() external {
        while (true) {}
    }
}

/// @notice The forms for many: purchases all or none, everything else without those that have moved on.
contract BatchTest is MarketTest {
    uint256 private constant ANY = type(uint256).max;
    uint256 private constant KEY = 0xBEEF;

    function _one(uint256 locked, bytes32 key) private pure returns (JobRequest memory) {
        return JobRequest(_definition(), locked, "job", false, ANY, key);
    }

    function _many(uint256 count) private pure returns (JobRequest[] memory requests) {
        requests = new JobRequest[](count);
        for (uint256 i = 0; i < count; i++) {
            requests[i] = _one(LOCKED, 0);
        }
    }

    function _buy(JobRequest[] memory requests) private returns (bytes32[] memory) {
        vm.prank(CUSTOMER);
        return market.requestNewJobs(requests);
    }

    function _assign(bytes32[] memory ids, address provider) private {
        vm.prank(SCHEDULER);
        market.metaScheduleMany(_assignments(ids, provider));
    }

    function _claimMany(uint256 count) private {
        vm.prank(PROVIDER);
        market.claimNextJobs(count);
    }

    function _reports(bytes32[] memory ids, JobStatus status, uint64 time)
        private
        pure
        returns (JobReport[] memory reports)
    {
        reports = new JobReport[](ids.length);
        for (uint256 i = 0; i < ids.length; i++) {
            reports[i] = JobReport(ids[i], uint8(status), time, "", 0);
        }
    }

    function _report(JobReport[] memory reports) private {
        vm.prank(PROVIDER);
        market.providerSetJobStatuses(reports);
    }

    /// @dev Jobs that run at PROVIDER.
    function _running(uint256 count) private returns (bytes32[] memory ids) {
        ids = _buy(_many(count));
        _assign(ids, PROVIDER);
        _claimMany(count);
        _report(_reports(ids, JobStatus.RUNNING, 0));
    }

    // ------------------------------------------------------------------------------------------------------- purchases

    function test_ManyAreBoughtInOrder() public {
        JobRequest[] memory requests = _many(3);
        requests[1].lockedCredits = 2 * LOCKED;
        requests[2].delegateSpendingAuthority = true;
        requests[2].delegateCap = 5;
        bytes32[] memory ids = _buy(requests);
        for (uint256 i = 0; i < 3; i++) {
            same(ids[i], bytes32(i + 1), "in order");
            same(jobs.get(ids[i]).cost.maxCost, requests[i].lockedCredits, "locked");
            same(jobs.get(ids[i]).jobName, bytes32("job"), "name");
        }
        yes(jobs.get(ids[2]).cost.delegateSpendingAuthority, "authority");
        same(jobs.delegateAllowance(ids[2]), 5, "cap");
        same(jobs.delegateAllowance(ids[1]), ANY, "no cap");
        same(credit.balanceOf(address(market)), 4 * LOCKED, "all locked");
        same(_buy(new JobRequest[](0)).length, 0, "none");
    }

    function test_AllOrNone() public {
        JobRequest[] memory requests = _many(3);
        requests[2].definition.ntasks = 0;
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InvalidJobDefinition.selector));
        _buy(requests);
        requests = _many(3);
        requests[2].lockedCredits = 999;
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 999, 1000));
        _buy(requests);
        requests = _many(11);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 10 * LOCKED, 11 * LOCKED));
        _buy(requests);
        same(jobs.jobIdCounter(), 0, "jobs");
        market.setEnableRequestNewJob(false);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NewJobRequestDisabled.selector));
        _buy(_many(1));
    }

    function test_AKeyBuysOnce() public {
        JobRequest[] memory requests = _many(4);
        (requests[0].key, requests[1].key, requests[3].key) = ("a", "b", "a");
        bytes32[] memory ids = _buy(requests);
        same(ids[3], ids[0], "the same purchase, also in one list");
        same(jobs.jobIdCounter(), 3, "jobs");
        same(market.jobOfKey(CUSTOMER, "b"), ids[1], "by its key");
        same(market.jobOfKey(STRANGER, "b"), bytes32(0), "a stranger's key");
        same(credit.balanceOf(address(market)), 3 * LOCKED, "paid once");

        // Neither funds nor a sane request are needed for what was bought.
        vm.prank(CUSTOMER);
        credit.approve(address(market), 0);
        JobRequest[] memory again = new JobRequest[](1);
        again[0] = _one(0, "a");
        same(_buy(again)[0], ids[0], "the first one's id");

        _fund(STRANGER, LOCKED);
        again[0].lockedCredits = LOCKED;
        vm.prank(STRANGER);
        same(market.requestNewJobs(again)[0], bytes32(uint256(4)), "another customer's purchase");
    }

    /// @notice Who asks again for an answer that was lost gets it, also of a market that was closed meanwhile.
    function test_AClosedMarketStillKnowsKeys() public {
        JobRequest[] memory requests = _many(1);
        requests[0].key = "mine";
        bytes32 id = _buy(requests)[0];
        market.setEnableRequestNewJob(false);
        same(_buy(requests)[0], id, "the same job");
        requests[0].key = "another";
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NewJobRequestDisabled.selector));
        _buy(requests);
    }

    function test_AKeyStaysUsedWhenItsJobHasEnded() public {
        JobRequest[] memory requests = new JobRequest[](1);
        requests[0] = _one(LOCKED, "a");
        bytes32 id = _buy(requests)[0];
        _cancel(id);
        same(_buy(requests)[0], id, "the first one's id");
        _isIn(id, JobStatus.CANCELLED);
    }

    // ---------------------------------------------------------------------------------------------------------- permit

    function _sign(address spender, uint256 value, uint256 deadline)
        private
        view
        returns (uint8 v, bytes32 r, bytes32 s)
    {
        address owner = vm.addr(KEY);
        bytes32 typehash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 content = keccak256(abi.encode(typehash, owner, spender, value, credit.nonces(owner), deadline));
        return vm.sign(KEY, keccak256(abi.encodePacked("\x19\x01", credit.DOMAIN_SEPARATOR(), content)));
    }

    function test_ASignatureIsAllowanceEnough() public {
        address owner = vm.addr(KEY);
        credit.mint(owner, LOCKED);
        uint256 deadline = _now();
        (uint8 v, bytes32 r, bytes32 s) = _sign(address(market), LOCKED, deadline);
        vm.prank(owner);
        bytes32[] memory ids = market.requestNewJobsWithPermit(_many(1), LOCKED, deadline, v, r, s);
        same(jobs.get(ids[0]).customerAddr, owner, "customer");
        same(credit.allowance(owner, address(market)), 0, "used up");

        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 0, LOCKED));
        vm.prank(owner);
        market.requestNewJobsWithPermit(_many(1), LOCKED, deadline, v, r, s);
    }

    /// @notice Whoever sees the signature first can use it: the purchase goes through all the same.
    function test_ASignatureThatWasUsedAlready() public {
        address owner = vm.addr(KEY);
        credit.mint(owner, LOCKED);
        uint256 deadline = _now();
        (uint8 v, bytes32 r, bytes32 s) = _sign(address(market), LOCKED, deadline);
        vm.prank(STRANGER);
        credit.permit(owner, address(market), LOCKED, deadline, v, r, s);
        vm.prank(owner);
        same(market.requestNewJobsWithPermit(_many(1), LOCKED, deadline, v, r, s).length, 1, "bought");
    }

    function test_ASignatureThatIsTooOld() public {
        address owner = vm.addr(KEY);
        credit.mint(owner, LOCKED);
        uint256 deadline = _now() - 1;
        (uint8 v, bytes32 r, bytes32 s) = _sign(address(market), LOCKED, deadline);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 0, LOCKED));
        vm.prank(owner);
        market.requestNewJobsWithPermit(_many(1), LOCKED, deadline, v, r, s);
    }

    // ----------------------------------------------------------------------------------------------------- assignments

    function test_AssignmentsLeaveOutWhatMovedOn() public {
        JobRequest[] memory requests = _many(4);
        requests[3].lockedCredits = PER_MINUTE - 1;
        bytes32[] memory ids = _buy(requests);
        _cancel(ids[1]);
        bytes32[] memory all = new bytes32[](6);
        (all[0], all[1], all[2], all[3]) = (ids[0], ids[1], ids[2], ids[3]);
        // Twice in one list, and unknown.
        (all[4], all[5]) = (ids[0], bytes32(uint256(77)));
        _assign(all, PROVIDER);
        _isIn(ids[0], JobStatus.META_SCHEDULED);
        _isIn(ids[1], JobStatus.CANCELLED);
        _isIn(ids[2], JobStatus.META_SCHEDULED);
        _isIn(ids[3], JobStatus.PENDING);
        _queued(PROVIDER, 2, 0, 0);
    }

    function test_AssignmentsLeaveOutWhoMayHaveNothing() public {
        bytes32[] memory ids = _buy(_many(3));
        providers.ban(OTHER);
        Assignment[] memory list = _assignments(ids, PROVIDER);
        (list[1].provider, list[2].provider) = (OTHER, STRANGER);
        vm.prank(SCHEDULER);
        market.metaScheduleMany(list);
        _isIn(ids[0], JobStatus.META_SCHEDULED);
        _isIn(ids[1], JobStatus.PENDING);
        _isIn(ids[2], JobStatus.PENDING);
    }

    /// @notice A provider that raises its prices after it was chosen by them gets nothing.
    function test_AssignmentsLeaveOutWhoAsksForMoreThanExpected() public {
        bytes32[] memory ids = _buy(_many(3));
        Assignment[] memory list = _assignments(ids, PROVIDER);
        (list[0].mostPerMinute, list[1].mostPerMinute) = (PER_MINUTE, PER_MINUTE - 1);
        vm.prank(SCHEDULER);
        market.metaScheduleMany(list);
        _isIn(ids[0], JobStatus.META_SCHEDULED);
        _isIn(ids[1], JobStatus.PENDING);
        _isIn(ids[2], JobStatus.META_SCHEDULED);
        _queued(PROVIDER, 2, 0, 0);

        ProviderPrices memory raised = _prices();
        raised.gpuPricePerMin++;
        _register(PROVIDER, raised);
        list[1].mostPerMinute = PER_MINUTE;
        vm.prank(SCHEDULER);
        market.metaScheduleMany(list);
        _isIn(ids[1], JobStatus.PENDING);
    }

    function test_OnlyTheMetaSchedulerAssignsMany() public {
        _expectUnauthorized(STRANGER, market.METASCHEDULER_ROLE());
        vm.prank(STRANGER);
        market.metaScheduleMany(new Assignment[](0));
    }

    /// @notice Too little gas for one of many must not look as if that one had moved on.
    function test_TooLittleGasIsNoReasonToLeaveOut() public {
        bytes32[] memory ids = _buy(_many(1));
        Assignment[] memory list = _assignments(ids, PROVIDER);
        bool left;
        for (uint256 gas = 30_000; gas < 150_000; gas += 1000) {
            vm.prank(SCHEDULER);
            (bool done,) = address(market).call{gas: gas}(abi.encodeCall(market.metaScheduleMany, (list)));
            if (done && jobs.get(ids[0]).status == JobStatus.PENDING) left = true;
            if (done) break;
        }
        no(left, "left out for want of gas");
        _isIn(ids[0], JobStatus.META_SCHEDULED);
    }

    /// @notice The same, where the record takes all the gas that it is given.
    function test_WhatRunsOutOfGasUndoesTheWhole() public {
        bytes32[] memory ids = new bytes32[](1);
        IJobRepository greedy = IJobRepository(address(new Greedy()));
        market = new MetaScheduler(IERC20(address(credit)), constants, providers, queues, greedy);
        market.grantRole(market.METASCHEDULER_ROLE(), address(this));
        bytes[2] memory calls = [
            abi.encodeCall(market.metaScheduleMany, (_assignments(ids, PROVIDER))),
            abi.encodeCall(market.providerSetJobStatuses, (_reports(ids, JobStatus.FINISHED, 0)))
        ];
        for (uint256 i = 0; i < calls.length; i++) {
            (bool done, bytes memory answer) = address(market).call{gas: 5_000_000}(calls[i]);
            no(done, "left out");
            same(answer, abi.encodeWithSelector(MarketCore.OutOfGas.selector), "answer");
        }
    }

    // ---------------------------------------------------------------------------------------------------------- claims

    function test_ClaimsTakeUpToSoMany() public {
        bytes32[] memory ids = _buy(_many(5));
        _assign(ids, PROVIDER);
        _claimMany(0);
        _queued(PROVIDER, 5, 0, 0);
        _claimMany(2);
        _queued(PROVIDER, 3, 0, 0);
        _claimMany(100);
        _queued(PROVIDER, 0, 0, 0);
        same(providers.getJobCount(PROVIDER), 5, "counted");
        for (uint256 i = 0; i < 5; i++) {
            _isIn(ids[i], JobStatus.SCHEDULED);
        }
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        _claimMany(1);
    }

    function test_ABannedProviderHandsAllBack() public {
        bytes32[] memory ids = _buy(_many(3));
        _assign(ids, PROVIDER);
        _cancel(ids[1]);
        providers.ban(PROVIDER);
        _claimMany(100);
        _isIn(ids[0], JobStatus.PENDING);
        _isIn(ids[1], JobStatus.CANCELLED);
        _isIn(ids[2], JobStatus.PENDING);
        _queued(PROVIDER, 0, 0, 0);
        same(providers.getJobCount(PROVIDER), 0, "counted");
    }

    function test_NoticesTakeUpToSoMany() public {
        bytes32[] memory ids = _running(3);
        for (uint256 i = 0; i < 3; i++) {
            _cancel(ids[i]);
            vm.prank(CUSTOMER);
            market.topUpJob(ids[i], PER_MINUTE);
        }
        _queued(PROVIDER, 0, 3, 3);
        vm.prank(PROVIDER);
        market.claimNextCancellingJobs(2);
        vm.prank(PROVIDER);
        market.claimNextTopUpJobs(100);
        _queued(PROVIDER, 0, 1, 0);
    }

    // --------------------------------------------------------------------------------------------------------- reports

    function test_ReportsLeaveOutWhatIsNotTheCallersOrHasEnded() public {
        bytes32[] memory ids = _running(3);
        bytes32 pending = _request();
        _set(ids[1], JobStatus.FAILED, 0);
        _pass(60);
        bytes32[] memory all = new bytes32[](6);
        (all[0], all[1], all[2], all[3], all[4]) = (bytes32(uint256(99)), ids[0], ids[1], ids[2], pending);
        all[5] = ids[0];
        _report(_reports(all, JobStatus.FINISHED, 60));
        _isIn(ids[0], JobStatus.FINISHED);
        _isIn(ids[1], JobStatus.FAILED);
        _isIn(ids[2], JobStatus.FINISHED);
        _isIn(pending, JobStatus.PENDING);
        uint256 bill = 2 * PER_MINUTE;
        same(credit.balanceOf(PROVIDER), bill - bill / 10, "paid once");
        same(market.withdrawable(), bill / 10, "the market's share");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED - LOCKED - bill, "refunded");

        // What a provider does not report is left out, too.
        _report(_reports(ids, JobStatus.SCHEDULED, 0));
        vm.prank(OTHER);
        market.providerSetJobStatuses(_reports(ids, JobStatus.FAILED, 60));
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 9, 0, 8));
        JobReport[] memory wrong = new JobReport[](1);
        wrong[0].status = 9;
        _report(wrong);
    }

    function test_ReportsRecordErrorsAndExitCodes() public {
        bytes32[] memory ids = _running(2);
        JobReport[] memory reports = _reports(ids, JobStatus.FAILED, 1);
        (reports[1].lastError, reports[1].exitCode) = ("step 3 failed", -9);
        _report(reports);
        same(bytes(jobs.get(ids[0]).lastError).length, 0, "none");
        same(bytes(jobs.get(ids[1]).lastError), "step 3 failed", "lastError");
        yes(jobs.get(ids[1]).exitCode == -9, "exitCode");
    }

    // --------------------------------------------------------------------------------------------------------- seconds

    function _end(bytes32 id, uint64 time) private {
        vm.prank(PROVIDER);
        market.providerSetJobStatusSecond(id, uint8(JobStatus.FINISHED), time, "", 0);
    }

    function test_SecondsAreBilledAsSuch() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(7);
        _end(id, 7);
        same(jobs.get(id).cost.finalCost, 7 * PER_MINUTE / 60, "finalCost");
    }

    /// @notice The bound is the chain's seconds and the delta: at it nothing is said, beyond it it is.
    function test_MoreSecondsThanTheChainSaw() public {
        uint64[2] memory times = [uint64(7 + 300), 7 + 301];
        for (uint256 i = 0; i < 2; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(7);
            vm.recordLogs();
            _end(id, times[i]);
            same(jobs.get(id).cost.finalCost, 307 * PER_MINUTE / 60, "finalCost");
            Vm.Log[] memory logs = vm.getRecordedLogs();
            bool told;
            for (uint256 j = 0; j < logs.length; j++) {
                if (logs[j].topics[0] != MarketCore.BilledTooMuchEvent.selector) continue;
                told = true;
                same(logs[j].data, abi.encode(id, PROVIDER, 307 * PER_MINUTE / 60), "what was billed");
            }
            same(told ? 1 : 0, i, "BilledTooMuchEvent");
        }
    }

    /// @notice By the minute the bound is in minutes that have begun.
    function test_MoreMinutesThanTheChainSaw() public {
        uint64[2] memory times = [uint64(2 + 5), 2 + 6];
        for (uint256 i = 0; i < 2; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(61);
            _set(id, JobStatus.FINISHED, times[i]);
            same(jobs.get(id).cost.finalCost, 7 * PER_MINUTE, "finalCost");
        }
    }

    /// @notice A price that 60 does not divide: rounded down, and no wei is left behind.
    function testFuzz_OddPricesAndSeconds(uint64 price, uint16 time) public {
        _register(PROVIDER, ProviderPrices(0, price, 0));
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(time);
        _end(id, time);
        uint256 bill = uint256(time) * (6 * uint256(price)) / 60;
        if (bill > LOCKED) bill = LOCKED;
        same(jobs.get(id).cost.finalCost, bill, "finalCost");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED - bill, "refund");
        same(credit.balanceOf(PROVIDER) + credit.balanceOf(address(market)), bill, "the provider's and the market's");
        same(credit.balanceOf(address(market)), market.withdrawable(), "nothing else is left");
    }

    function test_TheFeeIsForRequestedCancelsAlone() public {
        constants.setCancellationFeeMinute(4);
        bytes32 asked = _job(JobStatus.RUNNING);
        _cancel(asked);
        vm.prank(PROVIDER);
        market.providerSetJobStatusSecond(asked, uint8(JobStatus.CANCELLED), 1, "", 0);
        same(jobs.get(asked).cost.finalCost, 4 * PER_MINUTE, "at least the fee");

        bytes32 finished = _job(JobStatus.RUNNING);
        _cancel(finished);
        _end(finished, 0);
        same(jobs.get(finished).cost.finalCost, 0, "it finished before");

        bytes32 unasked = _job(JobStatus.RUNNING);
        vm.prank(PROVIDER);
        market.providerSetJobStatusSecond(unasked, uint8(JobStatus.CANCELLED), 0, "", 0);
        same(jobs.get(unasked).cost.finalCost, 0, "the provider's own wish");
    }
}
