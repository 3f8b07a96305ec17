// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import {MarketTest} from "./utils/Market.sol";
import {Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice Queues with entries of jobs that went elsewhere.
contract SkipsTest is MarketTest {
    // ---------------------------------------------------------------------------------------------------- ingredients

    function _assign(uint256 count) private returns (bytes32[] memory ids) {
        JobRequest[] memory orders = new JobRequest[](count);
        for (uint256 i = 0; i < count; i++) {
            orders[i] = JobRequest(_definition(), 10 * PER_MINUTE, "job", false, 0, 0);
        }
        vm.prank(CUSTOMER);
        ids = market.requestNewJobs(orders);
        vm.prank(SCHEDULER);
        market.metaScheduleMany(_assignments(ids, PROVIDER));
    }

    function _refuse(bytes32 id) private {
        address provider = jobs.providerOf(id);
        vm.prank(provider);
        market.refuseJob(id);
    }

    /// @notice So many stale entries, and a live one behind them.
    function _stale(uint256 count) private returns (bytes32 last) {
        bytes32[] memory ids = _assign(count + 1);
        for (uint256 i = 0; i < count; i++) {
            _refuse(ids[i]);
        }
        return ids[count];
    }

    function _claimMany(uint256 count) private {
        vm.prank(PROVIDER);
        market.claimNextJobs(count);
    }

    function _page(uint256 cursor, uint256 scan) private view returns (bytes32[] memory ids, uint256 next) {
        return queues.getQueue(PROVIDER, QueueKind.CLAIMABLE, cursor, scan);
    }

    // ---------------------------------------------------------------------------------------------------------- skips

    function test_ThirtyOneAreSkippedAtOnce() public {
        bytes32 last = _stale(31);
        _claim(PROVIDER);
        _isIn(last, JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice A call skips 32 and no more, and the next one goes on behind them.
    function test_ExactlyThirtyTwo() public {
        bytes32 last = _stale(32);
        _claimMany(5);
        _isIn(last, JobStatus.META_SCHEDULED);
        _claimMany(5);
        _isIn(last, JobStatus.SCHEDULED);
    }

    /// @notice Those that were found before the skips ran out are taken.
    function test_FoundBeforeTheSkipsRanOut() public {
        bytes32[] memory ids = _assign(40);
        for (uint256 i = 2; i < 38; i++) {
            _refuse(ids[i]);
        }
        _claimMany(10);
        _isIn(ids[1], JobStatus.SCHEDULED);
        _isIn(ids[38], JobStatus.META_SCHEDULED);
        _queued(PROVIDER, 2, 0, 0);
        _claimMany(10);
        _isIn(ids[39], JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice A claim of none makes no step over stale entries either.
    function test_NoneMovesNothing() public {
        _stale(3);
        (int128 before,) = queues.providerClaimableJobsQueues(PROVIDER);
        _claimMany(0);
        (int128 begin,) = queues.providerClaimableJobsQueues(PROVIDER);
        same(uint256(int256(begin)), uint256(int256(before)), "begin");
    }

    /// @notice Stale entries of the other two queues.
    function test_NewsOfEndedJobsAreSkipped() public {
        bytes32[] memory ids = _assign(3);
        _claimMany(3);
        for (uint256 i = 0; i < 3; i++) {
            _set(ids[i], JobStatus.RUNNING, 0);
            _cancel(ids[i]);
            vm.prank(CUSTOMER);
            market.topUpJob(ids[i], PER_MINUTE);
        }
        _set(ids[0], JobStatus.FAILED, 0);
        _set(ids[1], JobStatus.CANCELLED, 0);
        _queued(PROVIDER, 0, 1, 1);
        expectEmit(address(market));
        emit MarketCore.ClaimNextCancellingJobEvent(CUSTOMER, PROVIDER, ids[2]);
        vm.prank(PROVIDER);
        market.claimNextCancellingJobs(3);
        expectEmit(address(market));
        emit MarketCore.ClaimNextTopUpJobEvent(ids[2], PROVIDER, 1);
        vm.prank(PROVIDER);
        market.claimNextTopUpJobs(3);
        _queued(PROVIDER, 0, 0, 0);
    }

    // ---------------------------------------------------------------------------------------------------------- pages

    function test_PagesOfAQueue() public {
        bytes32[] memory ids = _assign(6);
        _refuse(ids[1]);
        _refuse(ids[4]);
        (bytes32[] memory page, uint256 next) = _page(0, 100);
        same(page.length, 4, "all that live");
        same(next, 0, "no more pages");
        same(abi.encode(page), abi.encode(_list(ids[0], ids[2], ids[3], ids[5])), "oldest first");

        (page, next) = _page(0, 2);
        same(page.length, 1, "a stale one was looked at too");
        same(page[0], ids[0], "the first");
        (page, next) = _page(next, 2);
        same(page.length, 2, "the next two");
        same(page[1], ids[3], "the fourth");
        (page, next) = _page(next, 2);
        same(page.length, 1, "the last");
        same(page[0], ids[5], "the sixth");
        same(next, 0, "no more pages");
    }

    function test_PagesAtTheEdges() public {
        (bytes32[] memory page, uint256 next) = _page(0, 10);
        same(page.length + next, 0, "a new queue");
        bytes32[] memory ids = _assign(2);
        (page, next) = _page(type(uint256).max, 10);
        same(page.length + next, 0, "behind the end");
        (page, next) = _page(1, type(uint256).max);
        same(page.length, 2, "before the beginning: all");
        (page, next) = _page(0, 0);
        same(page.length, 0, "nothing looked at");
        (page,) = _page(next, 1);
        same(page[0], ids[0], "goes on at the first");
        _claim(PROVIDER);
        (page, next) = _page(0, 10);
        same(page.length, 1, "one is left");
        same(page[0], ids[1], "the second");
        _claim(PROVIDER);
        (page, next) = _page(0, 10);
        same(page.length + next, 0, "none is left");
    }

    function _list(bytes32 a, bytes32 b, bytes32 c, bytes32 d) private pure returns (bytes32[] memory list) {
        list = new bytes32[](4);
        (list[0], list[1], list[2], list[3]) = (a, b, c, d);
    }

    // ------------------------------------------------------------------------------------------ writes as of v1.2

    function test_NothingToPushOrPop() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        queues = new ProviderJobQueues(jobs);
        // The job is claimed: its entry says nothing.
        for (uint256 i = 0; i < 33; i++) {
            queues.pushClaimableJob(PROVIDER, id);
        }
        same(queues.popNextClaimableJob(PROVIDER), bytes32(0), "stale ones only");
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        queues.pushTopUpJob(OTHER, id);
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        queues.popNextTopUpJob(OTHER);
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        queues.pushCancellingJob(PROVIDER, bytes32(uint256(77)));
    }

    // ------------------------------------------------------------------------------------------------- assignments

    /// @notice A job that was assigned as often as can be counted is assigned no more, holds up no other, and ends.
    function test_TheLastAssignment() public {
        bytes32[] memory ids = _assign(2);
        _refuse(ids[0]);
        _refuse(ids[1]);
        bytes32 slot = bytes32(uint256(keccak256(abi.encode(ids[0], 1))) + 2);
        vm.store(address(jobs), slot, vm.load(address(jobs), slot) | bytes32(uint256(65_534) << 16));
        same(jobs.getState(ids[0]).life.assignments(), 65_535, "assignments");

        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 65_536, 0, 65_535));
        _schedule(ids[0], PROVIDER);
        vm.prank(SCHEDULER);
        market.metaScheduleMany(_assignments(ids, PROVIDER));
        _isIn(ids[0], JobStatus.PENDING);
        _isIn(ids[1], JobStatus.META_SCHEDULED);
        _queued(PROVIDER, 1, 0, 0);
        _cancel(ids[0]);
        _isIn(ids[0], JobStatus.CANCELLED);
    }

    // ----------------------------------------------------------------------------------------------------------- fuzz

    /// @notice Whatever goes in and out: what is announced can be taken, oldest first, each once.
    function testFuzz_ClaimsAgainstTheRecord(uint256[24] memory seeds) public {
        bytes32[] memory ids = _assign(12);
        for (uint256 i = 0; i < seeds.length; i++) {
            uint256 seed = seeds[i] >> 8;
            bytes32 id = ids[seed % ids.length];
            JobStatus status = jobs.getState(id).life.status();
            uint256 step = seeds[i] % 4;
            if (step == 0 && queues.hasNextClaimableJob(PROVIDER)) {
                (bytes32[] memory first,) = _page(0, 1000);
                uint256 wanted = (seed >> 8) % 4;
                _claimMany(wanted);
                for (uint256 j = 0; j < first.length; j++) {
                    _isIn(first[j], j < wanted ? JobStatus.SCHEDULED : JobStatus.META_SCHEDULED);
                }
            } else if (step == 1 && status == JobStatus.META_SCHEDULED) {
                _refuse(id);
            } else if (step == 2 && status == JobStatus.PENDING) {
                _schedule(id, seed >> 16 & 1 == 0 ? PROVIDER : OTHER);
            } else if (step == 3 && status == JobStatus.SCHEDULED) {
                _refuse(id);
            }
            uint256 waiting;
            for (uint256 j = 0; j < ids.length; j++) {
                if (jobs.providerOf(ids[j]) == PROVIDER && jobs.get(ids[j]).status == JobStatus.META_SCHEDULED) {
                    waiting++;
                }
            }
            same(queues.getClaimableJobQueueSize(PROVIDER), waiting, "announced");
            (bytes32[] memory page,) = _page(0, 1000);
            same(page.length, waiting, "in the queue");
        }
    }
}
