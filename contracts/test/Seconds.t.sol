// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {MarketTest} from "./utils/Market.sol";
import {Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice Bills by the second, and the bound of both forms to the second.
contract SecondsTest is MarketTest {
    function _end(bytes32 id, JobStatus status, uint64 time) private {
        vm.prank(PROVIDER);
        market.providerSetJobStatusSecond(id, uint8(status), time, "", 0);
    }

    function _cost(uint256 time) private pure returns (uint256) {
        return time * PER_MINUTE / 60;
    }

    function _billed(bytes32 id) private view returns (uint256) {
        return jobs.get(id).cost.finalCost;
    }

    function test_OddSeconds() public {
        uint64[5] memory times = [uint64(0), 1, 59, 61, 3601];
        for (uint256 i = 0; i < times.length; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(times[i]);
            _end(id, JobStatus.FINISHED, times[i]);
            same(_billed(id), _cost(times[i]), "rounded down to a wei");
        }
    }

    function test_RunningByTheSecond() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _end(id, JobStatus.RUNNING, 12_345);
        same(jobs.get(id).time.start, _now(), "start");
        same(_billed(id), 0, "nothing billed");
    }

    /// @notice In minutes the chain's time is rounded up first; a report at the bound is no excess, one above is.
    function test_TheBoundOfMinutes() public {
        for (uint64 excess = 0; excess < 2; excess++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(61);
            vm.recordLogs();
            _set(id, JobStatus.FINISHED, 7 + excess);
            same(count(vm.getRecordedLogs(), MarketCore.BilledTooMuchEvent.selector), excess, "announced");
            same(_billed(id), 7 * PER_MINUTE, "billed");
        }
    }

    function test_TheExcessIsToldInWei() public {
        bytes32 id = _job(JobStatus.RUNNING);
        expectEmit(address(market));
        emit MarketCore.BilledTooMuchEvent(id, PROVIDER, 5 * PER_MINUTE);
        _end(id, JobStatus.OUT_OF_CREDITS, type(uint64).max);

        bytes32 small = _request(PER_MINUTE + 1);
        _schedule(small, PROVIDER);
        _claim(PROVIDER);
        _set(small, JobStatus.RUNNING, 0);
        expectEmit(address(market));
        emit MarketCore.BilledTooMuchEvent(small, PROVIDER, PER_MINUTE + 1);
        _set(small, JobStatus.OUT_OF_CREDITS, type(uint64).max);
    }

    function test_NoExcessWhereNothingIsBilled() public {
        bytes32 panicked = _job(JobStatus.RUNNING);
        bytes32 failed = _job(JobStatus.SCHEDULED);
        vm.recordLogs();
        _end(panicked, JobStatus.PANICKED, type(uint64).max);
        _end(failed, JobStatus.FAILED, type(uint64).max);
        same(count(vm.getRecordedLogs(), MarketCore.BilledTooMuchEvent.selector), 0, "announced");
        same(_billed(panicked) + _billed(failed), 0, "billed");
    }

    function test_TheLeastDelta() public {
        constants.setBillDurationDeltaMinute(1);
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(61);
        _end(id, JobStatus.FINISHED, 122);
        same(_billed(id), _cost(121), "the chain's seconds and a minute");
    }

    // ---------------------------------------------------------------------------------------------- a cancelled job

    function test_TheFeeIsTheLeast() public {
        constants.setCancellationFeeMinute(3);
        uint64[4] memory times = [uint64(0), 179, 180, 181];
        for (uint256 i = 0; i < times.length; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(times[i]);
            _cancel(id);
            _end(id, JobStatus.CANCELLED, times[i]);
            same(_billed(id), _cost(times[i] > 180 ? times[i] : 180), "at least the fee");
        }
    }

    /// @notice The fee is for CANCELLED alone, and only where the customer asked for it.
    function test_NoFeeOnOtherEnds() public {
        constants.setCancellationFeeMinute(3);
        JobStatus[4] memory ends = [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.OUT_OF_CREDITS, JobStatus.PANICKED];
        for (uint256 i = 0; i < ends.length; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _cancel(id);
            _pass(7);
            _end(id, ends[i], 7);
            same(_billed(id), ends[i] == JobStatus.PANICKED ? 0 : _cost(7), "the time alone");
        }
        bytes32 unasked = _job(JobStatus.RUNNING);
        _end(unasked, JobStatus.CANCELLED, 7);
        same(_billed(unasked), _cost(7), "the time alone");
        bytes32 unstarted = _job(JobStatus.SCHEDULED);
        _cancel(unstarted);
        _end(unstarted, JobStatus.CANCELLED, 7);
        same(_billed(unstarted), 0, "never ran");
    }

    function test_TheFeeIsAtMostWhatIsLocked() public {
        constants.setCancellationFeeMinute(1440);
        bytes32 id = _request(2 * PER_MINUTE);
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _cancel(id);
        _end(id, JobStatus.CANCELLED, 0);
        same(_billed(id), 2 * PER_MINUTE, "all that is locked");
    }

    /// @notice The fee in an event of an excess: what was billed.
    function test_ExcessBelowTheFee() public {
        constants.setCancellationFeeMinute(10);
        bytes32 id = _job(JobStatus.RUNNING);
        _cancel(id);
        expectEmit(address(market));
        emit MarketCore.BilledTooMuchEvent(id, PROVIDER, 10 * PER_MINUTE);
        _end(id, JobStatus.CANCELLED, 301);
    }

    // ----------------------------------------------------------------------------------------------------------- fuzz

    function testFuzz_Seconds(uint64 reported, uint32 time, uint16 delta, uint16 fee, uint8 end, bool asked) public {
        time /= 2;
        constants.setBillDurationDeltaMinute(within(delta, 1, 1440));
        constants.setCancellationFeeMinute(within(fee, 0, 1440));
        JobStatus status = JobStatus(within(end, 4, 8));
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(time);
        if (asked) _cancel(id);
        vm.recordLogs();
        _end(id, status, reported);
        Vm.Log[] memory logs = vm.getRecordedLogs();

        uint256 bound = uint256(time) + 60 * within(delta, 1, 1440);
        uint256 billed = reported < bound ? reported : bound;
        uint256 least = 60 * within(fee, 0, 1440);
        if (asked && status == JobStatus.CANCELLED && billed < least) billed = least;
        if (status == JobStatus.PANICKED) billed = 0;
        uint256 expected = _cost(billed);
        same(_billed(id), expected < LOCKED ? expected : LOCKED, "billed");
        bool excess = reported > bound && status != JobStatus.PANICKED;
        same(count(logs, MarketCore.BilledTooMuchEvent.selector), excess ? 1 : 0, "announced");
    }
}
