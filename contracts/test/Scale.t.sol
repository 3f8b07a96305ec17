// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./utils/Market.sol";
import {Check} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice A market that has seen so many jobs and providers, and the gas of each state-changing call in it.
contract Crowd is Market {
    /// @dev How many calls `gas` measures.
    uint256 public constant CALLS = 23;

    constructor(uint256 jobsBefore, uint256 providersBefore, uint256 queued) {
        _open();
        credit.mint(CUSTOMER, 1e30);
        vm.prank(CUSTOMER);
        credit.approve(address(market), 1e30);
        for (uint256 i = 0; i < providersBefore; i++) {
            _join(address(uint160(0x10000 + i)));
        }
        for (uint256 i = 0; i < jobsBefore; i++) {
            _cancel(_request());
        }
        // What first jobs pay once.
        for (uint256 i = 0; i < 8; i++) {
            bytes32 first = _job(JobStatus.RUNNING);
            _cancel(first);
            _add(first);
            _set(first, JobStatus.FINISHED, 1);
        }
        market.withdrawAdmin(market.withdrawable() / 2);
        for (uint256 i = 0; i < queued; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _cancel(id);
            _add(id);
        }
        for (uint256 i = 0; i < queued; i++) {
            _job(JobStatus.META_SCHEDULED);
        }
    }

    function _add(bytes32 id) private {
        vm.prank(CUSTOMER);
        market.topUpJob(id, LOCKED);
    }

    /// @dev At OTHER, whose queues are empty.
    function _elsewhere(JobStatus status) private returns (bytes32 id) {
        id = _request();
        if (status == JobStatus.PENDING) return id;
        _schedule(id, OTHER);
        if (status == JobStatus.META_SCHEDULED) return id;
        _claim(OTHER);
        if (status == JobStatus.SCHEDULED) return id;
        _set(id, JobStatus.RUNNING, 0);
    }

    function _spent(address caller, address target, bytes memory data) private returns (uint256 gas) {
        vm.prank(caller);
        (bool done,) = target.call(data);
        yes(done, "a call that is possible");
        return vm.lastCallGas().gasTotalUsed;
    }

    /// @notice The most gas of the three calls that take all that waits at PROVIDER.
    function all(uint256 count) external returns (uint256 most) {
        bytes[3] memory calls = [
            abi.encodeCall(market.claimNextJobs, (count)),
            abi.encodeCall(market.claimNextCancellingJobs, (count)),
            abi.encodeCall(market.claimNextTopUpJobs, (count))
        ];
        for (uint256 i = 0; i < 3; i++) {
            uint256 spent = _spent(PROVIDER, address(market), calls[i]);
            if (spent > most) most = spent;
        }
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice The gas of the call of that number.
    function gas(uint256 number) external returns (uint256) {
        address m = address(market);
        if (number == 0) {
            return _spent(CUSTOMER, m, abi.encodeCall(market.requestNewJob, (_definition(), LOCKED, "job", false)));
        }
        if (number == 1) return _spent(SCHEDULER, m, abi.encodeCall(market.metaSchedule, (_request(), PROVIDER)));
        if (number == 2) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextJob, ()));
        if (number == 3) {
            bytes32 id = _elsewhere(JobStatus.SCHEDULED);
            return _spent(OTHER, m, abi.encodeCall(market.providerSetJobStatus, (id, 3, 0, "", 0)));
        }
        if (number == 4) {
            bytes32 id = _elsewhere(JobStatus.RUNNING);
            return _spent(OTHER, m, abi.encodeCall(market.providerSetJobStatusSecond, (id, 5, 1, "", 0)));
        }
        if (number == 5) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextCancellingJob, ()));
        if (number == 6) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextTopUpJob, ()));
        if (number == 7) return _spent(CUSTOMER, m, abi.encodeCall(market.cancelJob, (_request())));
        if (number == 8) {
            return _spent(CUSTOMER, m, abi.encodeCall(market.cancelJob, (_elsewhere(JobStatus.RUNNING))));
        }
        if (number == 9) {
            return _spent(CUSTOMER, m, abi.encodeCall(market.topUpJob, (_elsewhere(JobStatus.RUNNING), LOCKED)));
        }
        if (number == 10) {
            return _spent(OTHER, m, abi.encodeCall(market.refuseJob, (_elsewhere(JobStatus.META_SCHEDULED))));
        }
        if (number == 11) {
            bytes32 id = _elsewhere(JobStatus.META_SCHEDULED);
            _pass(1 days);
            return _spent(STRANGER, m, abi.encodeCall(market.timeoutJob, (id)));
        }
        if (number == 12) {
            return _spent(SCHEDULER, m, abi.encodeCall(market.panicJob, (_elsewhere(JobStatus.RUNNING), "lost")));
        }
        if (number == 13) {
            return _spent(
                CUSTOMER, m, abi.encodeCall(market.setDelegateSpendingAuthority, (_elsewhere(JobStatus.RUNNING), true))
            );
        }
        if (number == 14) return _spent(address(this), m, abi.encodeCall(market.withdrawAdmin, (1)));
        if (number == 15) return _spent(address(this), m, abi.encodeCall(market.setEnableRequestNewJob, (true)));
        if (number == 16) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextJobs, (20)));
        if (number == 17) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextCancellingJobs, (20)));
        if (number == 18) return _spent(PROVIDER, m, abi.encodeCall(market.claimNextTopUpJobs, (20)));
        address p = address(providers);
        if (number == 19) {
            return _spent(PROVIDER, p, abi.encodeCall(providers.register, (_hardware(), _prices(), _labels())));
        }
        if (number == 20) {
            _register(STRANGER, _prices());
            return _spent(address(this), p, abi.encodeCall(providers.approve, (STRANGER)));
        }
        if (number == 21) return _spent(address(this), p, abi.encodeCall(providers.remove, (OTHER)));
        return _spent(address(this), p, abi.encodeCall(providers.ban, (PROVIDER)));
    }
}

/// @notice 5. What a call costs does not grow with the market.
contract ScaleTest is Check {
    uint256 private constant GO_CLIENTS_GAS = 20_000_000;
    /// @dev A queue's next entry stands in a new word or not, and a number that grows takes more bytes of an event.
    uint256 private constant SLACK = 25_000;
    uint256 private constant QUEUED = 200;

    function test_5_GasDoesNotGrow() public {
        Crowd few = new Crowd(1, 1, 21);
        Crowd many = new Crowd(300, 60, QUEUED);
        for (uint256 number = 0; number < few.CALLS(); number++) {
            uint256 alone = few.gas(number);
            uint256 crowded = many.gas(number);
            yes(crowded <= alone + SLACK, string.concat("gas of call ", vm.toString(number)));
            yes(crowded < GO_CLIENTS_GAS, string.concat("gas that Go clients send, call ", vm.toString(number)));
        }
    }

    /// @notice All that waits at once, as no client of version 1.2 asks for it.
    function test_5_AllOfTwoHundredAtOnce() public {
        Crowd many = new Crowd(1, 1, QUEUED);
        yes(many.all(QUEUED) < GO_CLIENTS_GAS, "gas of two hundred");
    }
}
