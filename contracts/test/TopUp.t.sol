// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {Tools} from "../src/Tools.sol";
import {JobRules} from "../src/libraries/JobRules.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice More credits for a job that is claimed or runs.
contract TopUpTest is MarketTest {
    function _topUp(bytes32 id, uint256 amount) private {
        vm.prank(CUSTOMER);
        market.topUpJob(id, amount);
    }

    function _topUpDelegate(bytes32 id) private {
        vm.prank(SCHEDULER);
        market.topUpJobDelegate(id);
    }

    function _allow(bytes32 id, bool allowed) private {
        vm.prank(CUSTOMER);
        market.setDelegateSpendingAuthority(id, allowed);
    }

    /// @notice A running job of so many minutes, with spending authority.
    function _short(uint256 durationMinute) private returns (bytes32 id) {
        id = _request(durationMinute * PER_MINUTE);
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _allow(id, true);
    }

    // ------------------------------------------------------------------------------------------------- by the customer

    function test_TopUpLocksAndTellsTheProvider() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _topUp(id, 4 * PER_MINUTE);
        JobCost memory cost = jobs.get(id).cost;
        same(cost.maxCost, LOCKED + 4 * PER_MINUTE, "maxCost");
        same(cost.pendingTopUp, 4 * PER_MINUTE, "pendingTopUp");
        same(credit.balanceOf(address(market)), LOCKED + 4 * PER_MINUTE, "locked");
        _queued(PROVIDER, 0, 0, 1);

        expectEmit(address(market));
        emit MarketCore.ClaimNextTopUpJobEvent(id, PROVIDER, 4);
        vm.prank(PROVIDER);
        market.claimNextTopUpJob();
        same(jobs.get(id).cost.pendingTopUp, 0, "noticed");
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice Fractions of minutes are not lost: what the provider hears adds up to what the credits buy.
    function test_MinutesAddUp() public {
        bytes32 id = _request(10 * PER_MINUTE + PER_MINUTE / 2);
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        uint64[2] memory added = [uint64(2), 1];
        for (uint256 i = 0; i < 2; i++) {
            _topUp(id, PER_MINUTE + PER_MINUTE / 2);
            expectEmit(address(market));
            emit MarketCore.ClaimNextTopUpJobEvent(id, PROVIDER, added[i]);
            vm.prank(PROVIDER);
            market.claimNextTopUpJob();
        }
    }

    function test_TopUpsInARowAreOneEntry() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _topUp(id, PER_MINUTE);
        _topUp(id, 2 * PER_MINUTE);
        _queued(PROVIDER, 0, 0, 1);
        expectEmit(address(market));
        emit MarketCore.ClaimNextTopUpJobEvent(id, PROVIDER, 3);
        vm.prank(PROVIDER);
        market.claimNextTopUpJob();
    }

    function test_TopUpOnlyClaimedOrRunning() public {
        JobStatus[2] memory wrong = [JobStatus.PENDING, JobStatus.META_SCHEDULED];
        for (uint256 i = 0; i < wrong.length; i++) {
            bytes32 id = _job(wrong[i]);
            vm.expectRevert(abi.encodeWithSelector(JobRules.RunningScheduledStatusOnly.selector, wrong[i]));
            _topUp(id, PER_MINUTE);
        }
        bytes32 ended = _request();
        _cancel(ended);
        vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, JobStatus.CANCELLED));
        _topUp(ended, PER_MINUTE);
    }

    function test_TopUpWithinThePayersMeans() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 9 * LOCKED, 9 * LOCKED + 1));
        _topUp(id, 9 * LOCKED + 1);
    }

    /// @notice Who tops up another's job pays, and the job's customer gets what is left.
    function test_TopUpBeyondAllCreditsIsRefusedWithAReason() public {
        bytes32 id = _job(JobStatus.RUNNING);
        uint256 most = type(uint96).max - LOCKED;
        uint256[2] memory amounts = [most + 1, type(uint256).max];
        for (uint256 i = 0; i < 2; i++) {
            vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, amounts[i], PER_MINUTE, most));
            _topUp(id, amounts[i]);
        }
        _fund(CUSTOMER, most);
        _topUp(id, most);
        same(jobs.get(id).cost.maxCost, type(uint96).max, "all that a job can lock");
        _set(id, JobStatus.PANICKED, 0);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED + most, "refunded");
    }

    function test_TopUpByAnybody() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _fund(STRANGER, LOCKED);
        vm.prank(STRANGER);
        market.topUpJob(id, LOCKED);
        same(credit.balanceOf(STRANGER), 0, "the stranger paid");
        _set(id, JobStatus.FINISHED, 0);
        same(credit.balanceOf(CUSTOMER), 11 * LOCKED, "the customer has it all");
    }

    /// @notice Nobody can busy a provider with notices of nothing.
    function test_TopUpBuysAtLeastAMinute() public {
        bytes32 id = _job(JobStatus.RUNNING);
        uint256[2] memory few = [uint256(0), PER_MINUTE - 1];
        for (uint256 i = 0; i < few.length; i++) {
            vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, few[i], PER_MINUTE));
            _topUp(id, few[i]);
        }
        _topUp(id, PER_MINUTE);
        _queued(PROVIDER, 0, 0, 1);
    }

    function test_UnheardTopUpIsRefundedAndLeavesTheQueue() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _topUp(id, LOCKED);
        _set(id, JobStatus.FINISHED, 2);
        _queued(PROVIDER, 0, 0, 0);
        same(jobs.get(id).cost.pendingTopUp, 0, "pendingTopUp");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED - 2 * PER_MINUTE, "refunded");
    }

    /// @notice The next claim announces the total, so a top-up for the provider before is no longer pending.
    function test_TopUpSurvivesARefusal() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _topUp(id, LOCKED);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        _queued(PROVIDER, 0, 0, 0);

        _schedule(id, OTHER);
        expectEmit(address(market));
        emit MarketCore.ClaimJobEvent(CUSTOMER, OTHER, id, uint64(2 * LOCKED / PER_MINUTE), _definition());
        _claim(OTHER);
        _queued(OTHER, 0, 0, 0);
    }

    // ------------------------------------------------------------------------------------------- by the meta-scheduler

    function test_DelegateAddsASlice() public {
        constants.setTopUpSliceDurationMin(30);
        bytes32 id = _short(29);
        _topUpDelegate(id);
        same(jobs.get(id).cost.maxCost, 59 * PER_MINUTE, "maxCost");
        same(jobs.get(id).cost.pendingTopUp, 30 * PER_MINUTE, "pendingTopUp");
    }

    function test_DelegateOnlyWhenLittleRemains() public {
        constants.setTopUpSliceDurationMin(30);
        bytes32 id = _short(40);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.RemainingTimeAboveLimit.selector, 40, 30));
        _topUpDelegate(id);

        _pass(10 minutes);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.RemainingTimeAboveLimit.selector, 30, 30));
        _topUpDelegate(id);

        _pass(1);
        _topUpDelegate(id);
    }

    function test_DelegateNeedsAuthority() public {
        bytes32 id = _short(10);
        _allow(id, false);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NoSpendingAuthority.selector));
        _topUpDelegate(id);

        _allow(id, true);
        _expectUnauthorized(STRANGER, market.METASCHEDULER_ROLE());
        vm.prank(STRANGER);
        market.topUpJobDelegate(id);
    }

    function test_DelegateNeedsAllowance() public {
        bytes32 id = _short(10);
        vm.prank(CUSTOMER);
        credit.approve(address(market), 5);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 5, 60 * PER_MINUTE));
        _topUpDelegate(id);
    }

    function test_AuthorityIsTheCustomersAndForHotJobs() public {
        bytes32 id = _job(JobStatus.PENDING);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerOnly.selector, STRANGER, CUSTOMER));
        vm.prank(STRANGER);
        market.setDelegateSpendingAuthority(id, true);

        _cancel(id);
        vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, JobStatus.CANCELLED));
        _allow(id, true);
    }

    function test_RemainingTime() public {
        Tools tools = new Tools();
        bytes32 id = _short(10);
        same(tools.getRemainingTime(jobs.get(id), _prices()), 10, "at the start");
        _pass(4 minutes + 1);
        same(tools.getRemainingTime(jobs.get(id), _prices()), 5, "in the fifth minute");
        _pass(1 days);
        same(tools.getRemainingTime(jobs.get(id), _prices()), 0, "overdue");
        _set(id, JobStatus.OUT_OF_CREDITS, 10);
        same(tools.getRemainingTime(jobs.get(id), _prices()), 0, "ended");
    }
}
