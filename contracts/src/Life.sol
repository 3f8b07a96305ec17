// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobRules} from "./libraries/JobRules.sol";
import {JobStatus, OutOfRange} from "./Types.sol";

/// @dev The word of a job that each step of its life writes. From the lowest bit:
///
///     8     status
///     8     flags
///     16    assignments: how often the job was assigned: tells an assignment's queue entries from older ones
///     32    blockNumberStateChange
///     32    previous: the number of the customer's job before this one; 0: none
///     32    submit, unix seconds, as the next three; 0: not yet
///     32    start
///     32    end
///     32    cancelRequest
///     32    clock: while hot, when its provider got the job, assigned or claimed; once cold, the seconds that were
/// billed
type Life is uint256;

using LifeWord for Life global;

/// @notice What a step of a job's life depends on: the job's words but for what few steps need.
struct JobState {
    Life life;
    address customerAddr;
    address providerAddr;
    uint256 maxCost;
    /// @dev Wei of credit, fixed at the assignment; 0 before.
    uint256 costPerMinute;
}

/// @title The fields of a job's word
/// @notice A value that does not fit its field reverts `OutOfRange`.
library LifeWord {
    uint256 internal constant CANCEL_REQUESTED = 1;
    uint256 internal constant DELEGATE = 2;
    /// @dev Delegated top-ups have a cap of their own.
    uint256 internal constant CAPPED = 4;
    uint256 internal constant IN_CANCELLING_QUEUE = 8;
    uint256 internal constant IN_TOP_UP_QUEUE = 16;
    /// @dev Each of these announces a word that few jobs have.
    uint256 internal constant MORE = 32;
    uint256 internal constant ODD = 64;
    uint256 internal constant ERROR = 128;

    uint256 private constant FLAGS = 8;
    uint256 private constant ASSIGNMENTS = 16;
    uint256 private constant BLOCK = 32;
    uint256 private constant PREVIOUS = 64;
    uint256 private constant SUBMIT = 96;
    uint256 private constant START = 128;
    uint256 private constant END = 160;
    uint256 private constant CANCEL_REQUEST = 192;
    uint256 private constant CLOCK = 224;

    // ------------------------------------------------------------------------------------------------------- reads

    function status(Life life) internal pure returns (JobStatus) {
        return JobStatus(_get(life, 0, 8));
    }

    function has(Life life, uint256 flag) internal pure returns (bool) {
        return Life.unwrap(life) & flag << FLAGS != 0;
    }

    function assignments(Life life) internal pure returns (uint16) {
        return uint16(_get(life, ASSIGNMENTS, 16));
    }

    function blockNumberStateChange(Life life) internal pure returns (uint256) {
        return _get(life, BLOCK, 32);
    }

    function previous(Life life) internal pure returns (uint256) {
        return _get(life, PREVIOUS, 32);
    }

    function submit(Life life) internal pure returns (uint256) {
        return _get(life, SUBMIT, 32);
    }

    function start(Life life) internal pure returns (uint256) {
        return _get(life, START, 32);
    }

    function end(Life life) internal pure returns (uint256) {
        return _get(life, END, 32);
    }

    function cancelRequest(Life life) internal pure returns (uint256) {
        return _get(life, CANCEL_REQUEST, 32);
    }

    function clock(Life life) internal pure returns (uint256) {
        return _get(life, CLOCK, 32);
    }

    // ------------------------------------------------------------------------------------------------------ writes

    function withStatus(Life life, JobStatus value) internal pure returns (Life) {
        return _set(life, 0, 8, uint8(value));
    }

    function withFlag(Life life, uint256 flag, bool on) internal pure returns (Life) {
        uint256 bits = flag << FLAGS;
        return Life.wrap(on ? Life.unwrap(life) | bits : Life.unwrap(life) & ~bits);
    }

    /// @dev Reverts rather than count from 0 again, which would bring stale queue entries back to life.
    function withOneMoreAssignment(Life life) internal pure returns (Life) {
        return _set(life, ASSIGNMENTS, 16, uint256(life.assignments()) + 1);
    }

    function withBlockNumberStateChange(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, BLOCK, 32, value);
    }

    function withPrevious(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, PREVIOUS, 32, value);
    }

    function withSubmit(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, SUBMIT, 32, value);
    }

    function withStart(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, START, 32, value);
    }

    function withEnd(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, END, 32, value);
    }

    function withCancelRequest(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, CANCEL_REQUEST, 32, value);
    }

    function withClock(Life life, uint256 value) internal pure returns (Life) {
        return _set(life, CLOCK, 32, value);
    }

    /// @dev When the job was assigned; 0 while it has no provider, and once it is cold.
    function assignedAt(Life life) internal pure returns (uint256) {
        return JobRules.isJobHot(life.status()) ? life.clock() : 0;
    }

    // ----------------------------------------------------------------------------------------------------- private

    function _get(Life life, uint256 shift, uint256 bits) private pure returns (uint256) {
        return Life.unwrap(life) >> shift & ((1 << bits) - 1);
    }

    function _set(Life life, uint256 shift, uint256 bits, uint256 value) private pure returns (Life) {
        uint256 highest = (1 << bits) - 1;
        if (value > highest) revert OutOfRange(value, 0, highest);
        return Life.wrap(Life.unwrap(life) & ~(highest << shift) | value << shift);
    }
}
