// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {JobStore} from "../src/JobStore.sol";
import {Life, LifeWord} from "../src/Life.sol";
import {MarketTest} from "./utils/Market.sol";
import {Check, Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice What a job's record has at each of its ends, and the writes of version 1.2.
contract RecordTest is MarketTest {
    uint256 private constant TOO_LATE = uint256(type(uint32).max) + 1;

    // --------------------------------------------------------------------------------------------------------- at ends

    function test_EachEndIsRecorded() public {
        vm.prank(CUSTOMER);
        credit.approve(address(market), 100 * LOCKED);
        credit.mint(CUSTOMER, 100 * LOCKED);
        for (uint8 i = 4; i < 9; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            vm.prank(CUSTOMER);
            market.topUpJob(id, LOCKED);
            same(jobs.get(id).cost.pendingTopUp, LOCKED, "pendingTopUp");
            _pass(60);
            vm.roll(200 + i);
            vm.prank(PROVIDER);
            market.providerSetJobStatus(id, i, 1, "why", int64(uint64(i)) - 6);

            Job memory job = jobs.get(id);
            same(uint256(job.status), i, "status");
            same(job.time.end, _now(), "end");
            same(job.time.start, _now() - 60, "start");
            same(job.time.blockNumberStateChange, 200 + i, "block");
            same(job.time.panicTimestamp, JobStatus(i) == JobStatus.PANICKED ? _now() : 0, "panicTimestamp");
            same(bytes(job.lastError), "why", "lastError");
            yes(job.exitCode == int64(uint64(i)) - 6, "exitCode");
            same(job.cost.pendingTopUp, 0, "pendingTopUp");
            same(job.cost.maxCost, 2 * LOCKED, "maxCost stays");
            same(job.cost.finalCost, JobStatus(i) == JobStatus.PANICKED ? 0 : PER_MINUTE, "finalCost");
            same(jobs.costPerMinute(id), PER_MINUTE, "the price stays");
            same(jobs.getState(id).life.assignedAt(), 0, "assigned no more");
            _queued(PROVIDER, 0, 0, 0);
        }
    }

    /// @notice A client can ask its node for the jobs of one customer or provider.
    function test_IndexedEventsOfALife() public {
        bytes32 id = bytes32(uint256(1));
        _expectChange(id, address(0), JobStatus.PENDING, JobStatus.PENDING, 0);
        _request();
        _expectChange(id, PROVIDER, JobStatus.PENDING, JobStatus.META_SCHEDULED, PER_MINUTE);
        _schedule(id, PROVIDER);
        _expectChange(id, PROVIDER, JobStatus.META_SCHEDULED, JobStatus.PENDING, PER_MINUTE);
        vm.prank(PROVIDER);
        market.refuseJob(id);
        _schedule(id, OTHER);
        _expectChange(id, OTHER, JobStatus.META_SCHEDULED, JobStatus.SCHEDULED, PER_MINUTE);
        _claim(OTHER);
        _expectChange(id, OTHER, JobStatus.SCHEDULED, JobStatus.RUNNING, PER_MINUTE);
        _set(id, JobStatus.RUNNING, 0);
        _expectChange(id, OTHER, JobStatus.RUNNING, JobStatus.FINISHED, PER_MINUTE);
        _set(id, JobStatus.FINISHED, 0);
    }

    function _expectChange(bytes32 id, address provider, JobStatus from, JobStatus to, uint256 price) private {
        expectEmit(address(jobs));
        emit IJobRepository.JobStatusChanged(id, CUSTOMER, provider, from, to, price);
    }

    // ------------------------------------------------------------------------------------------------ as of version
    // 1.2

    /// @dev Lets this contract write the record, as no real market does.
    function _write() private {
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
    }

    function test_CreateRecordsAllFields() public {
        _write();
        Job memory job;
        job.jobId = bytes32(uint256(99));
        job.status = JobStatus.RUNNING;
        (job.customerAddr, job.providerAddr) = (STRANGER, PROVIDER);
        job.definition = _definition();
        job.definition.uses = _labels();
        job.cost = JobCost(1, 2, 3, true);
        job.time = JobTime(1, 2, 3, 4, 5, 6);
        job.jobName = "a name";
        job.hasCancelRequest = true;
        job.lastError = "error";
        job.exitCode = -1;
        bytes32 id = jobs.create(job);
        same(id, bytes32(uint256(1)), "the next id, whatever it carries");
        (job.jobId, job.time.blockNumberStateChange) = (id, block.number);
        same(abi.encode(jobs.get(id)), abi.encode(job), "all fields");
        same(jobs.getByCustomer(STRANGER)[0], id, "in the customer's list");

        job.status = JobStatus.FINISHED;
        (job.cost.finalCost, job.time.panicTimestamp, job.lastError) = (0, 0, "");
        jobs.update(job);
        same(abi.encode(jobs.get(id)), abi.encode(job), "all fields after an update");
        job.jobName = "another";
        jobs.update(job);
        same(jobs.get(id).jobName, bytes32("another"), "an update without a change of status");
    }

    function test_NobodysJobIsNone() public {
        _write();
        Job memory job;
        job.definition = _definition();
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.create(job);
    }

    /// @notice A cost or a time of panic that does not follow from the rest is kept, and forgotten when it does.
    function test_OddCostsAndTimes() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(60);
        _set(id, JobStatus.FINISHED, 1);
        _write();
        JobCost memory cost = jobs.get(id).cost;
        cost.finalCost = 77;
        jobs.setCost(id, cost);
        same(abi.encode(jobs.get(id).cost), abi.encode(cost), "an odd cost");
        JobTime memory time = jobs.get(id).time;
        time.panicTimestamp = 5;
        jobs.setTime(id, time);
        same(abi.encode(jobs.get(id).time), abi.encode(time), "an odd time");
        same(jobs.get(id).cost.finalCost, 77, "the cost stays odd");

        (cost.finalCost, time.panicTimestamp) = (PER_MINUTE, 0);
        jobs.setTime(id, time);
        jobs.setCost(id, cost);
        same(abi.encode(jobs.get(id).cost), abi.encode(cost), "the cost as it follows");
        same(abi.encode(jobs.get(id).time), abi.encode(time), "the time as it follows");
    }

    /// @notice What is paid is what is shown, whatever was written before the end.
    function test_AnEndForgetsAnOddCost() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _write();
        JobCost memory cost = jobs.get(id).cost;
        cost.finalCost = 77;
        jobs.setCost(id, cost);
        same(jobs.get(id).cost.finalCost, 77, "of a hot job");
        _pass(60);
        _set(id, JobStatus.FINISHED, 1);
        same(jobs.get(id).cost.finalCost, PER_MINUTE, "finalCost");
        same(credit.balanceOf(PROVIDER) + market.withdrawable(), PER_MINUTE, "paid");
    }

    function test_WhatDoesNotFitIsRefusedWithAReason() public {
        bytes32 id = _request();
        _write();
        JobTime memory time = jobs.get(id).time;
        time.start = TOO_LATE;
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, TOO_LATE, 0, TOO_LATE - 1));
        jobs.setTime(id, time);
        JobCost memory cost = jobs.get(id).cost;
        cost.maxCost = 1 << 96;
        vm.expectRevert(abi.encodeWithSignature("SafeCastOverflowedUintDowncast(uint8,uint256)", 96, 1 << 96));
        jobs.setCost(id, cost);
        JobDefinition memory definition = _definition();
        definition.storageType = 5;
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 5, 0, 4));
        jobs.setDefinition(id, definition);
        definition = _definition();
        definition.uses = new Label[](65);
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 65, 0, 64));
        jobs.setDefinition(id, definition);
        definition = _definition();
        definition.batchLocationHash = string(new bytes(3000));
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 3013, 0, 2048));
        jobs.setDefinition(id, definition);
        vm.expectRevert(
            abi.encodeWithSignature("SafeCastOverflowedUintDowncast(uint8,uint256)", 96, (1 << 96) + LOCKED)
        );
        jobs.addCredits(id, 1 << 96, false);
    }

    function test_ANameOfItsOwn() public {
        bytes32 id = _request();
        _write();
        bytes32 full = bytes32(type(uint256).max);
        bytes32[3] memory names = [full, bytes32(0), bytes32("x")];
        for (uint256 i = 0; i < names.length; i++) {
            jobs.setJobName(id, names[i]);
            same(jobs.get(id).jobName, names[i], "name");
            same(abi.encode(jobs.get(id).definition), abi.encode(_definition()), "the definition stays");
        }
        JobDefinition memory definition = _definition();
        definition.uses = _labels();
        jobs.setDefinition(id, definition);
        same(jobs.get(id).jobName, names[2], "the name stays");
        same(abi.encode(jobs.get(id).definition), abi.encode(definition), "definition");
    }

    /// @notice A status that a writer sets alone bills nothing: when the job was assigned is not how long it ran.
    function test_AColdStatusAloneBillsNothing() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _write();
        jobs.setJobStatus(id, JobStatus.FAILED);
        same(jobs.get(id).cost.finalCost, 0, "finalCost");
        same(jobs.get(id).cost.maxCost, LOCKED, "maxCost");
    }

    /// @notice A hot one alone leaves it as it is.
    function test_AHotStatusAloneKeepsWhenItWasAssigned() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        uint256 assigned = _now();
        _pass(60);
        _write();
        jobs.setJobStatus(id, JobStatus.SCHEDULED);
        same(jobs.getState(id).life.assignedAt(), assigned, "assigned at");
    }

    function test_ANameThatDoesNotFit() public {
        JobDefinition memory definition = _definition();
        definition.batchLocationHash = string(new bytes(2038));
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, LOCKED, "", false);
        _write();
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 2049, 0, 2048));
        jobs.setJobName(id, "x");
    }

    function test_ErrorsAndCodesAreReplaced() public {
        bytes32 id = _request();
        _write();
        jobs.setLastError(id, "first");
        jobs.setLastError(id, "");
        same(bytes(jobs.get(id).lastError).length, 0, "no error");
        jobs.setHasCancelRequest(id, true);
        jobs.setHasCancelRequest(id, false);
        no(jobs.get(id).hasCancelRequest, "no request");
    }
}

/// @notice Each field of a job's word beside all others.
contract LifeWordTest is Check {
    function _fields(Life life) private pure returns (uint256[9] memory) {
        return [
            uint256(life.status()),
            life.assignments(),
            life.blockNumberStateChange(),
            life.previous(),
            life.submit(),
            life.start(),
            life.end(),
            life.cancelRequest(),
            life.clock()
        ];
    }

    function _with(Life life, uint256 field, uint256 value) private pure returns (Life) {
        if (field == 0) return life.withStatus(JobStatus(value));
        if (field == 2) return life.withBlockNumberStateChange(value);
        if (field == 3) return life.withPrevious(value);
        if (field == 4) return life.withSubmit(value);
        if (field == 5) return life.withStart(value);
        if (field == 6) return life.withEnd(value);
        if (field == 7) return life.withCancelRequest(value);
        return life.withClock(value);
    }

    function _highest(uint256 field) private pure returns (uint256) {
        if (field == 0) return 8;
        return field == 1 ? type(uint16).max : type(uint32).max;
    }

    /// @dev Any word whose status is one.
    function _any(uint256 word) private pure returns (Life) {
        return Life.wrap(word & ~uint256(0xff) | word % 9);
    }

    function testFuzz_AFieldTouchesNoOther(uint256 word, uint256 field, uint256 value) public pure {
        Life life = _any(word);
        field = within(field, 0, 8);
        if (field == 1) field = 8;
        value = within(value, 0, _highest(field));
        uint256[9] memory expected = _fields(life);
        expected[field] = value;
        Life changed = _with(life, field, value);
        same(abi.encode(_fields(changed)), abi.encode(expected), "fields");
        for (uint256 flag = 1; flag < 256; flag <<= 1) {
            same(changed.has(flag) ? 1 : 0, life.has(flag) ? 1 : 0, "flags");
        }
    }

    function testFuzz_AFlagTouchesNothingElse(uint256 word, uint8 flag, bool on) public pure {
        Life life = _any(word);
        flag = uint8(1 << (flag % 8));
        Life changed = life.withFlag(flag, on);
        yes(changed.has(flag) == on, "the flag");
        same(abi.encode(_fields(changed)), abi.encode(_fields(life)), "fields");
        for (uint256 other = 1; other < 256; other <<= 1) {
            if (other != flag) yes(changed.has(other) == life.has(other), "other flags");
        }
    }

    function testFuzz_AssignmentsCount(uint256 word) public pure {
        Life life = _any(word & ~uint256(1 << 16));
        uint256[9] memory expected = _fields(life);
        expected[1]++;
        same(abi.encode(_fields(life.withOneMoreAssignment())), abi.encode(expected), "fields");
    }

    function test_AssignmentsDoNotStartAnew() public {
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 1 << 16, 0, type(uint16).max));
        this.assign(Life.wrap(0xffff << 16));
    }

    function assign(Life life) external pure returns (Life) {
        return life.withOneMoreAssignment();
    }

    function test_WhatDoesNotFitIsRefused() public {
        for (uint256 field = 2; field < 9; field++) {
            uint256 highest = _highest(field);
            vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, highest + 1, 0, highest));
            this.set(field, highest + 1);
        }
    }

    function set(uint256 field, uint256 value) external pure returns (Life) {
        return _with(Life.wrap(0), field, value);
    }
}
