// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {MetaScheduler} from "../src/MetaScheduler.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice What the meta-scheduler may add to a job: within slice, cap and allowance, and only where the customer
/// agreed.
contract DelegateTest is MarketTest {
    uint256 private constant ANY = type(uint256).max;
    uint256 private constant SLICE = 60;

    /// @dev A running job of a minute.
    function _short(bool authority, uint256 cap) private returns (bytes32 id) {
        JobRequest[] memory requests = new JobRequest[](1);
        requests[0] = JobRequest(_definition(), PER_MINUTE, "job", authority, cap, 0);
        vm.prank(CUSTOMER);
        id = market.requestNewJobs(requests)[0];
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
    }

    function _topUp(bytes32 id) private {
        vm.prank(SCHEDULER);
        market.topUpJobDelegate(id);
    }

    function _cap(bytes32 id, uint256 cap) private {
        vm.prank(CUSTOMER);
        market.setDelegateSpendingCap(id, cap);
    }

    function _allow(bytes32 id, bool allowed) private {
        vm.prank(CUSTOMER);
        market.setDelegateSpendingAuthority(id, allowed);
    }

    function _locked(bytes32 id) private view returns (uint256) {
        return jobs.get(id).cost.maxCost;
    }

    function _expectCapReached(uint256 left) private {
        vm.expectRevert(abi.encodeWithSelector(MarketCore.DelegateCapReached.selector, left, PER_MINUTE));
    }

    function test_StopsExactlyAtTheCap() public {
        uint256 cap = (SLICE + 10) * PER_MINUTE + 3;
        bytes32 id = _short(true, cap);
        _topUp(id);
        same(_locked(id), (1 + SLICE) * PER_MINUTE, "a slice");
        same(jobs.delegateAllowance(id), 10 * PER_MINUTE + 3, "left");

        _pass(10 minutes);
        _topUp(id);
        same(_locked(id), PER_MINUTE + cap, "what was left of the cap, to the wei");
        same(jobs.delegateAllowance(id), 0, "nothing left");

        _pass(30 minutes);
        _expectCapReached(0);
        _topUp(id);
        same(_locked(id), PER_MINUTE + cap, "no more");
    }

    function test_LessThanAMinuteIsNotWorthIt() public {
        bytes32 id = _short(true, PER_MINUTE - 1);
        _expectCapReached(PER_MINUTE - 1);
        _topUp(id);
    }

    function test_WithoutACapTheAllowanceBounds() public {
        bytes32 id = _short(true, ANY);
        _topUp(id);
        vm.prank(CUSTOMER);
        credit.approve(address(market), 5);
        _pass(10 minutes);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 5, SLICE * PER_MINUTE));
        _topUp(id);
    }

    function test_TheCapCanBeSetLaterAndRaised() public {
        bytes32 id = _short(true, ANY);
        expectEmit(address(market));
        emit MarketCore.DelegateSpendingChanged(id, true, 0);
        _cap(id, 0);
        _expectCapReached(0);
        _topUp(id);
        _cap(id, 2 * PER_MINUTE);
        _topUp(id);
        same(_locked(id), 3 * PER_MINUTE, "as far as it goes");
        _cap(id, ANY);
        _topUp(id);
        same(_locked(id), (3 + SLICE) * PER_MINUTE, "a slice");
    }

    /// @notice The authority alone may change, the cap stays, also one that was asked for without it.
    function test_TheAuthorityLeavesTheCapAlone() public {
        bytes32 id = _short(false, 2 * PER_MINUTE);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NoSpendingAuthority.selector));
        _topUp(id);
        expectEmit(address(market));
        emit MarketCore.DelegateSpendingChanged(id, true, 2 * PER_MINUTE);
        _allow(id, true);
        _topUp(id);
        same(_locked(id), 3 * PER_MINUTE, "within the cap");
        _allow(id, false);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NoSpendingAuthority.selector));
        _topUp(id);
    }

    /// @notice What others add does not count against the cap.
    function test_TheCustomersOwnTopUpsAreNoDelegates() public {
        bytes32 id = _short(true, 2 * PER_MINUTE);
        vm.prank(CUSTOMER);
        market.topUpJob(id, 5 * PER_MINUTE);
        same(jobs.delegateAllowance(id), 2 * PER_MINUTE, "left");
    }

    function test_OnlyTheCustomerSetsTheCap() public {
        bytes32 id = _short(true, ANY);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerOnly.selector, STRANGER, CUSTOMER));
        vm.prank(STRANGER);
        market.setDelegateSpendingCap(id, 0);
    }

    function test_ACapBeyondAllCreditsIsRefusedWithAReason() public {
        bytes32 id = _short(true, ANY);
        uint256 large = uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, large, 0, type(uint96).max));
        _cap(id, large);
    }

    function test_OnlyClaimedOrRunningJobs() public {
        bytes32 id = _request();
        _allow(id, true);
        bytes memory refused = abi.encodeWithSignature("RunningScheduledStatusOnly(uint8)", JobStatus.PENDING);
        vm.expectRevert(refused);
        _topUp(id);
        _cancel(id);
        vm.expectRevert(abi.encodeWithSignature("JobHotStatusOnly(uint8)", JobStatus.CANCELLED));
        _topUp(id);
    }

    /// @notice A job that costs nothing never runs dry.
    function test_FreeJobsNeedNothing() public {
        _register(PROVIDER, ProviderPrices(0, 0, 0));
        bytes32 id = _short(true, ANY);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.RemainingTimeAboveLimit.selector, type(uint64).max, SLICE));
        _topUp(id);
    }
}
