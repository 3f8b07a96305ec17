// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Constants} from "../src/Constants.sol";
import {MarketCore} from "../src/MarketCore.sol";
import {MetaScheduler} from "../src/MetaScheduler.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

interface Owned {
    function owner() external view returns (address);
    function pendingOwner() external view returns (address);
    function transferOwnership(address newOwner) external;
    function acceptOwnership() external;
}

/// @notice What the admin may change, within which bounds, and what it can't.
contract SettingsTest is MarketTest {
    function _set(bytes4 setter, uint256 value) private returns (bool done, bytes memory answer) {
        return address(constants).call(abi.encodeWithSelector(setter, value));
    }

    function test_EachSettingHasItsBounds() public {
        bytes4[6] memory setters = [
            constants.setMinimumAmount.selector,
            constants.setDeepsquareCut.selector,
            constants.setBillDurationDeltaMinute.selector,
            constants.setCancellationFeeMinute.selector,
            constants.setClaimJobTimeout.selector,
            constants.setTopUpSliceDurationMin.selector
        ];
        bytes4[6] memory getters = [
            constants.minimumAmount.selector,
            constants.deepsquareCut.selector,
            constants.billDurationDeltaMinute.selector,
            constants.cancellationFeeMinute.selector,
            constants.claimJobTimeout.selector,
            constants.topUpSliceDurationMin.selector
        ];
        bytes32[6] memory names = [
            bytes32("minimumAmount"),
            "deepsquareCut",
            "billDurationDeltaMinute",
            "cancellationFeeMinute",
            "claimJobTimeout",
            "topUpSliceDurationMin"
        ];
        uint256[6] memory lowest = [uint256(0), 0, 1, 0, 1, 1];
        uint256[6] memory highest = [uint256(type(uint96).max), 100, 1440, 1440, 604_800, 86_400];
        for (uint256 i = 0; i < 6; i++) {
            uint256[2] memory ends = [lowest[i], highest[i]];
            for (uint256 j = 0; j < 2; j++) {
                expectEmit(address(constants));
                emit Constants.SettingChanged(names[i], ends[j]);
                (bool done,) = _set(setters[i], ends[j]);
                yes(done, "set");
                (, bytes memory value) = address(constants).staticcall(abi.encodePacked(getters[i]));
                same(value, abi.encode(ends[j]), "value");
            }
            (bool beyond, bytes memory answer) = _set(setters[i], highest[i] + 1);
            no(beyond, "beyond");
            same(answer, abi.encodeWithSelector(OutOfRange.selector, highest[i] + 1, lowest[i], highest[i]), "answer");
            if (lowest[i] == 0) continue;
            (beyond,) = _set(setters[i], 0);
            no(beyond, "below");
        }
        Settings memory all = constants.all();
        same(abi.encode(all), abi.encode(highest), "all of them at once");
    }

    function test_OwnershipPassesInTwoSteps() public {
        address[2] memory owned = [address(constants), address(credit)];
        for (uint256 i = 0; i < 2; i++) {
            Owned one = Owned(owned[i]);
            one.transferOwnership(STRANGER);
            same(one.owner(), address(this), "not yet");
            same(one.pendingOwner(), STRANGER, "offered");
            vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", OTHER));
            vm.prank(OTHER);
            one.acceptOwnership();
            vm.prank(STRANGER);
            one.acceptOwnership();
            same(one.owner(), STRANGER, "accepted");
        }
    }

    /// @notice Closing the market stops purchases and nothing else: who has locked credits gets them back.
    function test_AClosedMarketGoesOn() public {
        bytes32 pending = _request();
        bytes32 running = _job(JobStatus.RUNNING);
        bytes32 assigned = _job(JobStatus.META_SCHEDULED);
        bytes32 claimed = _job(JobStatus.SCHEDULED);
        expectEmit(address(market));
        emit MetaScheduler.RequestNewJobEnabled(false);
        market.setEnableRequestNewJob(false);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NewJobRequestDisabled.selector));
        _request();

        _schedule(pending, PROVIDER);
        _claim(PROVIDER);
        _cancel(assigned);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        _set(assigned, JobStatus.CANCELLED, 0);
        vm.prank(CUSTOMER);
        market.topUpJob(running, LOCKED);
        _pass(60);
        _set(running, JobStatus.FINISHED, 1);
        vm.prank(PROVIDER);
        market.refuseJob(pending);
        _cancel(pending);
        vm.prank(SCHEDULER);
        market.panicJob(claimed, "");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED - PER_MINUTE, "all but the bill is back");
    }

    function test_TheAdminTakesItsShareAlone() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _request();
        _pass(60);
        _set(id, JobStatus.FINISHED, 1);
        uint256 share = PER_MINUTE / 10;
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, share, share + 1));
        market.withdrawAdmin(share + 1);
        expectEmit(address(market));
        emit MetaScheduler.AdminWithdrawal(address(this), share);
        market.withdrawAdmin(share);
        same(credit.balanceOf(address(this)), share, "paid out");
        same(market.withdrawable(), 0, "nothing left");
        same(credit.balanceOf(address(market)), LOCKED, "the other job's credits");
    }

    function test_EventsOfACancelRequestAndATopUp() public {
        bytes32 id = _job(JobStatus.RUNNING);
        expectEmit(address(market));
        emit MarketCore.JobCancelRequested(id, CUSTOMER, PROVIDER);
        _cancel(id);
        _fund(STRANGER, LOCKED);
        expectEmit(address(market));
        emit MarketCore.JobToppedUp(id, STRANGER, PROVIDER, LOCKED);
        vm.prank(STRANGER);
        market.topUpJob(id, LOCKED);
    }

    /// @notice Whole market's shares: nothing, all.
    function test_CutsOfNothingAndOfAll() public {
        uint256[2] memory cuts = [uint256(0), 100];
        for (uint256 i = 0; i < 2; i++) {
            constants.setDeepsquareCut(cuts[i]);
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(60);
            _set(id, JobStatus.FINISHED, 1);
        }
        same(credit.balanceOf(PROVIDER), PER_MINUTE, "the first bill");
        same(market.withdrawable(), PER_MINUTE, "the second bill");
    }

    function test_ExtensionsAreAnnounced() public view {
        same(market.EXTENSIONS(), 2, "EXTENSIONS");
    }
}
