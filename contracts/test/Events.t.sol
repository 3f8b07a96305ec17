// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {MetaScheduler} from "../src/MetaScheduler.sol";
import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {IProviderManager} from "../src/interfaces/IProviderManager.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice The events that clients can ask their node for by customer and by provider.
contract EventsTest is MarketTest {
    function _expectChange(bytes32 id, address provider, JobStatus from, JobStatus to, uint256 price) private {
        expectEmit(address(jobs));
        emit IJobRepository.JobTransitionEvent(id, from, to);
        expectEmit(address(jobs));
        emit IJobRepository.JobStatusChanged(id, CUSTOMER, provider, from, to, price);
    }

    function _expectCancelRequest(bytes32 id, address provider) private {
        expectEmit(address(market));
        emit MarketCore.JobCancelRequested(id, CUSTOMER, provider);
    }

    // ---------------------------------------------------------------------------------------------- JobStatusChanged

    /// @notice A job that leaves its provider is announced with the one that it leaves, and its price.
    function test_GoingBack() public {
        bytes32 late = _job(JobStatus.META_SCHEDULED);
        _pass(300);
        _expectChange(late, PROVIDER, JobStatus.META_SCHEDULED, JobStatus.PENDING, PER_MINUTE);
        market.timeoutJob(late);

        bytes32 unwanted = _job(JobStatus.SCHEDULED);
        _cancel(unwanted);
        _expectChange(unwanted, PROVIDER, JobStatus.SCHEDULED, JobStatus.CANCELLED, PER_MINUTE);
        vm.prank(PROVIDER);
        market.refuseJob(unwanted);
    }

    function test_EachEnd() public {
        for (uint8 i = 4; i <= 8; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _expectChange(id, PROVIDER, JobStatus.RUNNING, JobStatus(i), PER_MINUTE);
            _set(id, JobStatus(i), 0);
        }
        bytes32 lost = _request();
        _expectChange(lost, address(0), JobStatus.PENDING, JobStatus.PANICKED, 0);
        vm.prank(SCHEDULER);
        market.panicJob(lost, "");
    }

    // -------------------------------------------------------------------------------------------------- providers

    function _expectProvider(address provider, uint8 membership, bool banned) private {
        expectEmit(address(providers));
        emit IProviderManager.ProviderChanged(provider, membership, banned);
    }

    function test_WhereAProviderStands() public {
        expectEmit(address(providers));
        emit IProviderManager.ProviderOffer(STRANGER, 11e15, 5e15, 1e15);
        _expectProvider(STRANGER, 1, false);
        _register(STRANGER, _prices());
        _expectProvider(STRANGER, 2, false);
        providers.approve(STRANGER);
        _expectProvider(STRANGER, 2, true);
        providers.ban(STRANGER);
        _expectProvider(STRANGER, 0, true);
        providers.remove(STRANGER);
        _expectProvider(STRANGER, 0, false);
        providers.unban(STRANGER);
    }

    // ---------------------------------------------------------------------------------------------------- the market

    function test_Notices() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _cancel(id);
        vm.prank(CUSTOMER);
        market.topUpJob(id, PER_MINUTE);
        expectEmit(address(market));
        emit MarketCore.NoticeTaken(id, PROVIDER, QueueKind.CANCELLING);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        expectEmit(address(market));
        emit MarketCore.NoticeTaken(id, PROVIDER, QueueKind.TOP_UP);
        vm.prank(PROVIDER);
        market.claimNextTopUpJob();
    }

    /// @notice A purchase tells of the delegate only where it is allowed or capped.
    function test_TheDelegateOfAPurchase() public {
        uint256 any = type(uint256).max;
        JobRequest[] memory requests = new JobRequest[](3);
        requests[0] = JobRequest(_definition(), LOCKED, "job", false, any, 0);
        requests[1] = JobRequest(_definition(), LOCKED, "job", true, any, 0);
        requests[2] = JobRequest(_definition(), LOCKED, "job", false, 7, 0);
        vm.recordLogs();
        vm.prank(CUSTOMER);
        bytes32[] memory ids = market.requestNewJobs(requests);
        same(count(vm.getRecordedLogs(), MarketCore.DelegateSpendingChanged.selector), 2, "told");
        expectEmit(address(market));
        emit MarketCore.DelegateSpendingChanged(bytes32(uint256(ids[2]) + 1), true, any);
        vm.prank(CUSTOMER);
        market.requestNewJob(_definition(), LOCKED, "job", true);
    }

    function test_CancelRequests() public {
        bytes32 pending = _request();
        _expectCancelRequest(pending, address(0));
        _expectChange(pending, address(0), JobStatus.PENDING, JobStatus.CANCELLED, 0);
        _cancel(pending);

        JobStatus[3] memory from = [JobStatus.META_SCHEDULED, JobStatus.SCHEDULED, JobStatus.RUNNING];
        for (uint256 i = 0; i < from.length; i++) {
            bytes32 id = _job(from[i]);
            _expectCancelRequest(id, PROVIDER);
            _cancel(id);
            _expectCancelRequest(id, PROVIDER);
            _cancel(id);
            vm.prank(SCHEDULER);
            market.panicJob(id, "");
        }
    }

    function test_TopUps() public {
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(_definition(), 10 * PER_MINUTE, "", true);
        _schedule(id, PROVIDER);
        _claim(PROVIDER);

        expectEmit(address(market));
        emit MarketCore.JobToppedUp(id, CUSTOMER, PROVIDER, 2 * PER_MINUTE);
        vm.prank(CUSTOMER);
        market.topUpJob(id, 2 * PER_MINUTE);

        expectEmit(address(market));
        emit MarketCore.JobToppedUp(id, CUSTOMER, PROVIDER, 60 * PER_MINUTE);
        vm.prank(SCHEDULER);
        market.topUpJobDelegate(id);
    }

    function test_DelegatedSpending() public {
        bytes32 id = _request();
        expectEmit(address(market));
        emit MarketCore.DelegateSpendingChanged(id, true, type(uint256).max);
        vm.prank(CUSTOMER);
        market.setDelegateSpendingAuthority(id, true);
    }

    function test_OpenedAndClosed() public {
        bool[2] memory to = [false, true];
        for (uint256 i = 0; i < 2; i++) {
            expectEmit(address(market));
            emit MetaScheduler.RequestNewJobEnabled(to[i]);
            market.setEnableRequestNewJob(to[i]);
            yes(market.enableRequestNewJob() == to[i], "as announced");
        }
    }

    function test_Withdrawals() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(600);
        _set(id, JobStatus.FINISHED, 10);
        address admin = address(0xAD);
        market.grantRole(market.DEFAULT_ADMIN_ROLE(), admin);
        expectEmit(address(market));
        emit MetaScheduler.AdminWithdrawal(admin, PER_MINUTE - 1);
        vm.prank(admin);
        market.withdrawAdmin(PER_MINUTE - 1);
        same(credit.balanceOf(admin), PER_MINUTE - 1, "to the admin who asked");
        same(market.withdrawable(), 1, "left");

        expectEmit(address(market));
        emit MetaScheduler.AdminWithdrawal(address(this), 0);
        market.withdrawAdmin(0);
        market.withdrawAdmin(1);
        same(market.withdrawable(), 0, "nothing left");
        uint256 top = type(uint256).max;
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 0, top));
        market.withdrawAdmin(top);
    }
}
