// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice What each end of a job leaves in its record.
contract EndsTest is MarketTest {
    function _end(bytes32 id, JobStatus status) private {
        vm.roll(777);
        _pass(60);
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(status), 1, "why", 256 * 3);
    }

    function _checkEnded(bytes32 id, JobStatus status, uint256 cost) private view {
        Job memory job = jobs.get(id);
        yes(job.status == status, "status");
        same(job.time.end, _now(), "end");
        same(job.time.panicTimestamp, status == JobStatus.PANICKED ? _now() : 0, "panic time");
        same(job.time.blockNumberStateChange, 777, "block");
        same(job.cost.finalCost, cost, "final cost");
        same(job.cost.pendingTopUp, 0, "pending top-up");
        same(job.providerAddr, PROVIDER, "the provider stays");
        same(jobs.costPerMinute(id), PER_MINUTE, "the price stays");
        same(jobs.getState(id).life.assignedAt(), 0, "assigned no more");
        _queued(PROVIDER, 0, 0, 0);
    }

    function _checkReported(bytes32 id) private view {
        same(bytes(jobs.get(id).lastError), "why", "error");
        yes(jobs.get(id).exitCode == 256 * 3, "exit code");
    }

    function test_EachEndOfAnUnstartedJob() public {
        JobStatus[3] memory ends = [JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.PANICKED];
        for (uint256 i = 0; i < ends.length; i++) {
            for (uint8 from = 1; from <= 2; from++) {
                bytes32 id = _job(JobStatus(from));
                _end(id, ends[i]);
                _checkEnded(id, ends[i], 0);
                _checkReported(id);
                same(jobs.get(id).time.start, 0, "start");
            }
        }
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "all refunded");
    }

    function test_EndsThatNobodyReported() public {
        bytes32 lost = _job(JobStatus.RUNNING);
        vm.roll(777);
        vm.prank(SCHEDULER);
        market.panicJob(lost, "");
        _checkEnded(lost, JobStatus.PANICKED, 0);
        same(bytes(jobs.get(lost).lastError).length, 0, "no error");

        bytes32 refused = _job(JobStatus.SCHEDULED);
        vm.prank(CUSTOMER);
        market.topUpJob(refused, PER_MINUTE);
        _cancel(refused);
        vm.prank(PROVIDER);
        market.refuseJob(refused);
        _checkEnded(refused, JobStatus.CANCELLED, 0);

        bytes32 pending = _request();
        _pass(5);
        _cancel(pending);
        Job memory job = jobs.get(pending);
        same(job.time.end, _now(), "end");
        same(job.time.cancelRequestTimestamp, _now(), "cancel request");
        same(job.cost.finalCost, 0, "cost");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "all refunded");
    }

    /// @notice A text that came with RUNNING stays, unless the end brings another.
    function test_AnEarlierErrorStays() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.RUNNING), 0, "slow disk", 7);
        same(bytes(jobs.get(id).lastError), "slow disk", "at once");
        yes(jobs.get(id).exitCode == 0, "no exit code while it runs");
        _set(id, JobStatus.FINISHED, 0);
        same(bytes(jobs.get(id).lastError), "slow disk", "after the end");
    }

    function test_NegativeExitCodes() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.prank(PROVIDER);
        market.providerSetJobStatusSecond(id, uint8(JobStatus.FAILED), 0, "", type(int64).min);
        yes(jobs.get(id).exitCode == type(int64).min, "exit code");
    }

    function test_PendingTopUpsAreResetByARefusal() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        vm.prank(CUSTOMER);
        market.topUpJob(id, PER_MINUTE);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        same(jobs.get(id).cost.pendingTopUp, 0, "pending top-up");
        same(jobs.get(id).cost.maxCost, LOCKED + PER_MINUTE, "still locked");
        same(jobs.getState(id).life.assignedAt(), 0, "assigned no more");
    }
}
