// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobRing} from "../src/libraries/JobRing.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import {MarketTest} from "./utils/Market.sol";
import {Check} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice The queue itself against a plain list of entries of which some have become void.
contract RingTest is Check {
    using JobRing for JobRing.Ring;

    struct Entry {
        bytes32 id;
        uint16 assignments;
        bool live;
    }

    JobRing.Ring private ring;
    Entry[] private model;

    function testFuzz_BehavesAsAList(uint16[96] memory actions) public {
        for (uint256 i = 0; i < actions.length; i++) {
            uint256 seed = actions[i] >> 4;
            if (actions[i] % 4 < 2) {
                bytes32 id = bytes32(within(seed, 1, type(uint48).max));
                ring.push(id, uint16(seed));
                model.push(Entry(id, uint16(seed), true));
            } else if (actions[i] % 4 == 2) {
                _void(seed);
            } else {
                _take(1 + seed % 3);
            }
            same(ring.live, _live(), "live entries");
        }
        while (ring.live > 0) {
            _take(2);
        }
        same(_live(), 0, "all taken");
    }

    /// @dev An entry leaves from anywhere.
    function _void(uint256 seed) private {
        for (uint256 i = 0; i < model.length; i++) {
            Entry storage entry = model[(seed + i) % model.length];
            if (!entry.live) continue;
            entry.live = false;
            ring.drop();
            if (_live() == 0) delete model;
            return;
        }
    }

    /// @dev Takes up to so many live entries, as the queues do.
    function _take(uint256 count) private {
        uint256 end = ring.end;
        uint256 position = ring.begin;
        uint256 found;
        uint256 seen;
        if (ring.live == 0) return;
        for (; position < end && found < count; position++) {
            (bytes32 id, uint16 assignments) = ring.entry(position);
            same(id, model[seen].id, "the oldest first");
            same(assignments, model[seen].assignments, "its assignment");
            if (model[seen++].live) found++;
        }
        ring.advance(position, found);
        for (uint256 i = 0; i + seen < model.length; i++) {
            model[i] = model[i + seen];
        }
        for (uint256 i = 0; i < seen; i++) {
            model.pop();
        }
        if (_live() == 0) delete model;
    }

    function _live() private view returns (uint256 count) {
        for (uint256 i = 0; i < model.length; i++) {
            if (model[i].live) count++;
        }
    }

    /// @notice A queue that has been empty costs no new words.
    function test_PositionsStartAnew() public {
        for (uint256 round = 0; round < 3; round++) {
            for (uint256 i = 1; i <= 8; i++) {
                ring.push(bytes32(i), 1);
            }
            same(ring.end - ring.begin, 8, "entries");
            same(ring.begin, 4, "the same places each time");
            ring.advance(ring.end, 8);
        }
    }

    function test_NothingToTake() public {
        vm.expectRevert(abi.encodeWithSelector(JobRing.Empty.selector));
        this.advance(1, 1);
    }

    function test_ImpossibleIds() public {
        vm.expectRevert(abi.encodeWithSelector(JobRing.OutOfBounds.selector));
        this.push(0);
        vm.expectRevert(abi.encodeWithSelector(JobRing.OutOfBounds.selector));
        this.push(bytes32(uint256(1) << 48));
    }

    function push(bytes32 id) external {
        ring.push(id, 1);
    }

    function advance(uint256 begin, uint256 live) external {
        ring.advance(begin, live);
    }
}

/// @notice Void entries hold up nobody.
contract SkippingTest is MarketTest {
    /// @dev So many entries at PROVIDER that are void, before one that is not.
    function _voidBefore(uint256 count) private returns (bytes32 id) {
        bytes32[] memory ids = new bytes32[](count);
        _fund(CUSTOMER, (count + 5) * LOCKED);
        for (uint256 i = 0; i < count; i++) {
            ids[i] = _job(JobStatus.META_SCHEDULED);
        }
        id = _job(JobStatus.META_SCHEDULED);
        for (uint256 i = 0; i < count; i++) {
            vm.prank(SCHEDULER);
            market.panicJob(ids[i], "");
        }
    }

    function test_ACallSkipsFewAndTheNextGoesOn() public {
        bytes32 id = _voidBefore(2 * queues.MAX_SKIPPED());
        _queued(PROVIDER, 1, 0, 0);
        for (uint256 i = 0; i < 2; i++) {
            vm.recordLogs();
            _claim(PROVIDER);
            same(vm.getRecordedLogs().length, 0, "nothing found among those that it looked at");
            _queued(PROVIDER, 1, 0, 0);
        }
        _claim(PROVIDER);
        _isIn(id, JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
    }

    function test_TheQueueTellsWhatIsInIt() public {
        bytes32 id = _voidBefore(5);
        bytes32 second = _job(JobStatus.META_SCHEDULED);
        (bytes32[] memory ids, uint256 next) = queues.getQueue(PROVIDER, QueueKind.CLAIMABLE, 0, 6);
        same(ids.length, 1, "one among the first six");
        same(ids[0], id, "the oldest");
        (ids, next) = queues.getQueue(PROVIDER, QueueKind.CLAIMABLE, next, 6);
        same(ids.length, 1, "and one behind them");
        same(ids[0], second, "the newest");
        same(next, 0, "that is all");
        (ids, next) = queues.getQueue(STRANGER, QueueKind.TOP_UP, 0, 100);
        same(ids.length + next, 0, "nothing");
        (ids, next) = queues.getQueue(PROVIDER, QueueKind.CLAIMABLE, 1000, 100);
        same(ids.length + next, 0, "beyond the end");
    }

    /// @notice An entry of an earlier assignment is not one of the present one, though job and provider are the same.
    function test_AnOlderAssignmentIsVoid() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        bytes32 other = _job(JobStatus.META_SCHEDULED);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        _schedule(id, PROVIDER);
        _queued(PROVIDER, 2, 0, 0);
        _claim(PROVIDER);
        _isIn(other, JobStatus.SCHEDULED);
        _isIn(id, JobStatus.META_SCHEDULED);
        _claim(PROVIDER);
        _isIn(id, JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice However often a job came and went, its old entries are void, and it is claimed once.
    function test_ManyAssignments() public {
        bytes32 first = _job(JobStatus.META_SCHEDULED);
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        for (uint256 i = 0; i < 256; i++) {
            vm.prank(PROVIDER);
            market.refuseJob(id);
            _schedule(id, PROVIDER);
        }
        _queued(PROVIDER, 2, 0, 0);
        (bytes32[] memory ids,) = queues.getQueue(PROVIDER, QueueKind.CLAIMABLE, 0, 1000);
        same(abi.encodePacked(ids), abi.encodePacked(first, id), "in the queue");
        // The old ones are between the two: at most 32 are skipped a call.
        for (uint256 i = 0; i < 9; i++) {
            vm.prank(PROVIDER);
            market.claimNextJobs(2);
        }
        _isIn(first, JobStatus.SCHEDULED);
        _isIn(id, JobStatus.SCHEDULED);
        _queued(PROVIDER, 0, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        _claim(PROVIDER);
    }

    function test_BoundsOfEachQueueTellItsLength() public {
        _cancel(_job(JobStatus.RUNNING));
        bytes32 id = _job(JobStatus.RUNNING);
        vm.prank(CUSTOMER);
        market.topUpJob(id, LOCKED);
        (int128 begin, int128 end) = queues.providerCancellingJobsQueues(PROVIDER);
        same(uint256(int256(end - begin)), 1, "cancelling");
        (begin, end) = queues.providerTopUpJobsQueues(PROVIDER);
        same(uint256(int256(end - begin)), 1, "topped up");
        (bool claimable, bool cancelling, bool topUp) = queues.hasJob(PROVIDER);
        yes(!claimable && cancelling && topUp, "hasJob");
    }

    /// @notice Where a queue counts more than is live, which only a writer of the record beside the market can bring
    /// about, a claim puts it right.
    function test_AQueueThatCountsTooManyPutsItselfRight() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
        jobs.setJobStatus(id, JobStatus.FAILED);
        _queued(PROVIDER, 1, 0, 0);
        _claim(PROVIDER);
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice The functions of version 1.2, as the market's address.
    function test_PushAndPopOneByOne() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _cancel(id);
        vm.prank(CUSTOMER);
        market.topUpJob(id, LOCKED);
        vm.prank(address(market));
        same(queues.popNextCancellingJob(PROVIDER), id, "to cancel");
        vm.prank(address(market));
        same(queues.popNextTopUpJob(PROVIDER), id, "topped up");
        vm.prank(address(market));
        queues.pushCancellingJob(PROVIDER, id);
        vm.prank(address(market));
        queues.pushTopUpJob(PROVIDER, id);
        _queued(PROVIDER, 0, 1, 1);

        bytes32 next = _job(JobStatus.META_SCHEDULED);
        vm.prank(address(market));
        same(queues.popNextClaimableJob(PROVIDER), next, "to claim");
        vm.prank(address(market));
        queues.pushClaimableJob(PROVIDER, next);
        // One that says nothing any more is none.
        vm.prank(SCHEDULER);
        market.panicJob(next, "");
        bytes32 last = _job(JobStatus.META_SCHEDULED);
        vm.prank(address(market));
        same(queues.popNextClaimableJob(PROVIDER), last, "the next one that is");
    }
}
