// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice Refusals, time-outs and cancellations: what stands at a queue's head can always be acted upon.
contract QueuesTest is MarketTest {
    // --------------------------------------------------------------------------------------------------------- refuse

    function test_RefusedJobGoesToAnother() public {
        JobStatus[2] memory from = [JobStatus.META_SCHEDULED, JobStatus.SCHEDULED];
        for (uint256 i = 0; i < from.length; i++) {
            bytes32 id = _job(from[i]);
            expectEmit(address(market));
            emit MarketCore.JobRefusedEvent(id, PROVIDER, CUSTOMER);
            expectEmit(address(jobs));
            emit IJobRepository.JobTransitionEvent(id, from[i], JobStatus.PENDING);
            vm.prank(PROVIDER);
            market.refuseJob(id);

            same(jobs.get(id).providerAddr, address(0), "provider");
            same(jobs.costPerMinute(id), 0, "price");
            _queued(PROVIDER, 0, 0, 0);

            _schedule(id, OTHER);
            _claim(OTHER);
            _isIn(id, JobStatus.SCHEDULED);
        }
    }

    function test_RefuseThenTheSameProvider() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        _schedule(id, PROVIDER);
        _queued(PROVIDER, 1, 0, 0);
        _claim(PROVIDER);
        _queued(PROVIDER, 0, 0, 0);
    }

    function test_RefuseOnlyByTheProviderAndBeforeRunning() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.JobProviderOnly.selector, OTHER, PROVIDER));
        vm.prank(OTHER);
        market.refuseJob(id);

        _set(id, JobStatus.RUNNING, 0);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.MetaScheduledScheduledStatusOnly.selector, JobStatus.RUNNING));
        vm.prank(PROVIDER);
        market.refuseJob(id);
    }

    function test_RefusedAfterACancelRequestEnds() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _cancel(id);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        _isIn(id, JobStatus.CANCELLED);
        _queued(PROVIDER, 0, 0, 0);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "refunded");
    }

    // -------------------------------------------------------------------------------------------------------- time-out

    function test_TimedOutJobGoesToAnother() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        uint256 deadline = _now() + constants.claimJobTimeout();
        vm.warp(deadline - 1);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ClaimTimeoutNotReached.selector, deadline));
        market.timeoutJob(id);

        vm.warp(deadline);
        vm.prank(STRANGER);
        market.timeoutJob(id);
        _isIn(id, JobStatus.PENDING);
        _queued(PROVIDER, 0, 0, 0);

        _schedule(id, OTHER);
        same(jobs.getState(id).life.assignedAt(), deadline, "the time-out begins anew");
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        _claim(PROVIDER);
        _claim(OTHER);
    }

    function test_TimeoutOnlyWhileUnclaimed() public {
        JobStatus[3] memory wrong = [JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.RUNNING];
        for (uint256 i = 0; i < wrong.length; i++) {
            bytes32 id = _job(wrong[i]);
            _pass(1 days);
            vm.expectRevert(abi.encodeWithSelector(MarketCore.MetaScheduledStatusOnly.selector, wrong[i]));
            market.timeoutJob(id);
        }
    }

    function test_TimedOutAfterACancelRequestEnds() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        _cancel(id);
        _pass(1 days);
        market.timeoutJob(id);
        _isIn(id, JobStatus.CANCELLED);
        _queued(PROVIDER, 0, 0, 0);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "refunded");
    }

    // ---------------------------------------------------------------------------------------------- nothing blocks

    function test_JobsLeaveFromAnywhereInTheQueue() public {
        bytes32[5] memory ids;
        for (uint256 i = 0; i < 5; i++) {
            ids[i] = _job(JobStatus.META_SCHEDULED);
        }
        vm.prank(SCHEDULER);
        market.panicJob(ids[0], "");
        _cancel(ids[2]);
        _set(ids[2], JobStatus.CANCELLED, 0);
        _pass(1 days);
        market.timeoutJob(ids[4]);
        _queued(PROVIDER, 2, 0, 0);

        _claim(PROVIDER);
        _isIn(ids[1], JobStatus.SCHEDULED);
        _claim(PROVIDER);
        _isIn(ids[3], JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
    }

    function test_EndedJobIsNoLongerToCancel() public {
        bytes32 ended = _job(JobStatus.RUNNING);
        bytes32 other = _job(JobStatus.RUNNING);
        _cancel(ended);
        _cancel(other);
        _set(ended, JobStatus.FINISHED, 0);
        _queued(PROVIDER, 0, 1, 0);

        expectEmit(address(market));
        emit MarketCore.ClaimNextCancellingJobEvent(CUSTOMER, PROVIDER, other);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
    }

    /// @notice A banned provider's poll must not fail on the jobs it may not have: it would never get to the others.
    function test_BannedOrRemovedProviderHandsItsJobsBack() public {
        bytes32 running = _job(JobStatus.RUNNING);
        bytes32 first = _job(JobStatus.META_SCHEDULED);
        bytes32 second = _job(JobStatus.META_SCHEDULED);

        providers.ban(PROVIDER);
        expectEmit(address(market));
        emit MarketCore.JobRefusedEvent(first, PROVIDER, CUSTOMER);
        _claim(PROVIDER);
        _isIn(first, JobStatus.PENDING);

        providers.remove(PROVIDER);
        _claim(PROVIDER);
        _isIn(second, JobStatus.PENDING);
        _queued(PROVIDER, 0, 0, 0);
        same(providers.getJobCount(PROVIDER), 1, "claimed jobs");

        _cancel(running);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        _set(running, JobStatus.CANCELLED, 0);
        _isIn(running, JobStatus.CANCELLED);
    }

    function test_QueuesHoldOnlyTheProvidersJobs() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        vm.prank(address(market));
        queues.pushClaimableJob(OTHER, id);
    }

    function test_QueueBoundsTellTheLength() public {
        _job(JobStatus.SCHEDULED);
        _job(JobStatus.META_SCHEDULED);
        _job(JobStatus.META_SCHEDULED);
        (int128 begin, int128 end) = queues.providerClaimableJobsQueues(PROVIDER);
        same(uint256(int256(end - begin)), 2, "length");
    }
}

