// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobStore} from "../src/JobStore.sol";
import {MarketCore} from "../src/MarketCore.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import {Tools} from "../src/Tools.sol";
import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {JobRules} from "../src/libraries/JobRules.sol";
import {MarketTest} from "./utils/Market.sol";
import {Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice The status machine, and what each step of a job's life records and announces.
contract LifeTest is MarketTest {
    // ------------------------------------------------------------------------------------------------ status machine

    /// @notice Every pair of statuses against the table of the protocol.
    function test_StatusMachine() public {
        Tools tools = new Tools();
        // Row: from; column: to; in the order of JobStatus. 1: allowed.
        uint8[9][4] memory table = [
            [0, 1, 0, 0, 1, 0, 0, 0, 1], // PENDING
            [1, 0, 1, 0, 1, 0, 1, 0, 1], // META_SCHEDULED
            [1, 0, 0, 1, 1, 0, 1, 0, 1], // SCHEDULED
            [0, 0, 0, 0, 1, 1, 1, 1, 1] // RUNNING
        ];
        for (uint8 i = 0; i < 9; i++) {
            for (uint8 j = 0; j < 9; j++) {
                JobStatus from = JobStatus(i);
                JobStatus to = JobStatus(j);
                if (i == j) {
                    vm.expectRevert(abi.encodeWithSelector(JobRules.SameStatusError.selector));
                } else if (i > 3) {
                    vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, from));
                } else if (table[i][j] == 0) {
                    _expectInvalidTransition(from, to);
                }
                tools.checkNewJobStatus(from, to);
            }
        }
    }

    function test_HotAndCold() public {
        Tools tools = new Tools();
        for (uint8 i = 0; i < 9; i++) {
            same(tools.isJobHot(JobStatus(i)) ? 1 : 0, i <= 3 ? 1 : 0, "hot");
            same(tools.isJobCold(JobStatus(i)) ? 1 : 0, i <= 3 ? 0 : 1, "cold");
            same(tools.isDelegateTopable(JobStatus(i)) ? 1 : 0, i == 2 || i == 3 ? 1 : 0, "topable");
        }
    }

    // -------------------------------------------------------------------------------------------------------- request

    function test_RequestRecordsTheJob() public {
        JobDefinition memory definition = _definition();
        definition.uses = _labels();
        definition.affinity = new Affinity[](1);
        definition.affinity[0] = Affinity({label: Label({key: "zone", value: "ch"}), op: "=="});

        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, LOCKED, "my job", true);

        Job memory job = jobs.get(id);
        same(job.jobId, id, "jobId");
        same(job.customerAddr, CUSTOMER, "customer");
        same(job.providerAddr, address(0), "provider");
        same(abi.encode(job.definition), abi.encode(definition), "definition");
        same(job.cost.maxCost, LOCKED, "maxCost");
        yes(job.cost.delegateSpendingAuthority, "delegateSpendingAuthority");
        same(job.time.submit, _now(), "submit");
        same(job.time.start + job.time.end, 0, "start and end");
        same(job.time.blockNumberStateChange, block.number, "block");
        same(job.jobName, bytes32("my job"), "jobName");
        same(credit.balanceOf(address(market)), LOCKED, "locked");
    }

    function test_RequestEvents() public {
        bytes32 id = bytes32(uint256(1));
        expectEmit(address(jobs));
        emit IJobRepository.JobCreated(id);
        expectEmit(address(market));
        emit MarketCore.NewJobRequestEvent(id, CUSTOMER);
        same(_request(), id, "the first id");
    }

    /// @notice Go clients cannot read a receipt with an anonymous log.
    function test_RequestHasNoAnonymousLog() public {
        vm.recordLogs();
        _request();
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs.length, 4, "logs: transfer, created, indexed, requested");
        for (uint256 i = 0; i < logs.length; i++) {
            yes(logs[i].topics.length > 0, "a topic");
        }
    }

    function test_IdsCountAndCustomersListOldestFirst() public {
        bytes32 first = _request();
        bytes32 second = _request();
        same(first, bytes32(uint256(1)), "first");
        same(second, bytes32(uint256(2)), "second");
        same(jobs.jobIdCounter(), 2, "counter");

        bytes32[] memory ids = jobs.getByCustomer(CUSTOMER);
        same(ids.length, 2, "jobs of the customer");
        same(ids[0], first, "oldest first");
        same(jobs.jobIdByCustomer(CUSTOMER, 1), second, "by index");
        same(jobs.getByCustomer(STRANGER).length, 0, "jobs of a stranger");
    }

    function test_RequestRefusesWhenClosed() public {
        market.setEnableRequestNewJob(false);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NewJobRequestDisabled.selector));
        _request();
    }

    function test_RequestRefusesEmptyDefinitions() public {
        JobDefinition[4] memory bad = [_definition(), _definition(), _definition(), _definition()];
        bad[0].ntasks = 0;
        bad[1].cpusPerTask = 0;
        bad[2].memPerCpu = 0;
        bad[3].batchLocationHash = "";
        Tools tools = new Tools();
        yes(tools.isJobDefinitionValid(_definition()), "a good one");
        for (uint256 i = 0; i < bad.length; i++) {
            no(tools.isJobDefinitionValid(bad[i]), "a bad one");
            vm.expectRevert(abi.encodeWithSelector(MarketCore.InvalidJobDefinition.selector));
            vm.prank(CUSTOMER);
            market.requestNewJob(bad[i], LOCKED, "", false);
        }
    }

    function test_RequestRefusesWhatIsTooLargeToBeClaimed() public {
        JobDefinition memory definition = _definition();
        definition.uses = new Label[](2000);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InvalidJobDefinition.selector));
        vm.prank(CUSTOMER);
        market.requestNewJob(definition, LOCKED, "", false);

        delete definition.uses;
        definition.batchLocationHash = string(new bytes(4096));
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InvalidJobDefinition.selector));
        vm.prank(CUSTOMER);
        market.requestNewJob(definition, LOCKED, "", false);
    }

    /// @notice The name takes some of the room: what the tool calls valid can be bought with any name.
    function test_TheToolLeavesRoomForAnyName() public {
        Tools tools = new Tools();
        JobDefinition memory definition = _definition();
        bytes memory hash = new bytes(2100);
        uint256 refusedOnly;
        for (uint256 length = 1900; length < hash.length; length++) {
            assembly ("memory-safe") {
                mstore(hash, length)
            }
            definition.batchLocationHash = string(hash);
            bool valid = tools.isJobDefinitionValid(definition);
            yes(valid == _canBuy(definition, bytes32(type(uint256).max)), "with the longest name");
            if (!valid && _canBuy(definition, "")) refusedOnly++;
            assembly ("memory-safe") {
                mstore(hash, 2100)
            }
        }
        same(refusedOnly, 32, "with a shorter name more fits");
    }

    function _canBuy(JobDefinition memory definition, bytes32 name) private returns (bool done) {
        bytes memory request = abi.encodeCall(market.requestNewJob, (definition, 1000, name, false));
        vm.prank(CUSTOMER);
        (done,) = address(market).call(request);
    }

    function test_TheLargestDefinitionIsCheapToClaimAndRead() public {
        JobDefinition memory definition = _definition();
        definition.uses = new Label[](1);
        for (uint256 labels = 2; abi.encode(definition).length + 224 <= 4096; labels++) {
            definition.uses = new Label[](labels);
        }
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, LOCKED, "", false);
        _schedule(id, PROVIDER);
        uint256 gas = gasleft();
        _claim(PROVIDER);
        yes(gas - gasleft() < 1_000_000, "gas of the claim");
        bytes32[] memory page = new bytes32[](50);
        for (uint256 i = 0; i < page.length; i++) {
            page[i] = id;
        }
        gas = gasleft();
        jobs.getMany(page);
        yes(gas - gasleft() < 30_000_000, "gas of a page");
    }

    function test_AnErrorsTextIsCutNeverRefused() public {
        bytes memory text = new bytes(5000);
        for (uint256 i = 0; i < text.length; i++) {
            text[i] = i % 2 == 0 ? bytes1(0xc3) : bytes1(0xa9);
        }
        bytes32 id = _job(JobStatus.RUNNING);
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.FAILED), 1, string.concat("x", string(text)), 256);
        // 1024 bytes would end within a character.
        same(bytes(jobs.get(id).lastError).length, 1023, "length");
        _isIn(id, JobStatus.FAILED);
    }

    function test_RequestWithoutGpus() public {
        JobDefinition memory definition = _definition();
        definition.gpus = 0;
        vm.prank(CUSTOMER);
        market.requestNewJob(definition, LOCKED, "", false);
    }

    function test_RequestRefusesTooLittle() public {
        same(constants.minimumAmount(), 1000, "minimum");
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 999, 1000));
        _request(999);
        _request(1000);
    }

    function test_RequestRefusesMoreThanAJobCanLock() public {
        uint256 most = type(uint96).max;
        bytes memory refused = abi.encodeWithSelector(OutOfRange.selector, most + 1, constants.minimumAmount(), most);
        vm.expectRevert(refused);
        _request(most + 1);
        JobRequest[] memory requests = new JobRequest[](2);
        requests[0] = JobRequest(_definition(), LOCKED, "job", false, 0, 0);
        requests[1] = JobRequest(_definition(), most + 1, "job", false, 0, 0);
        vm.expectRevert(refused);
        vm.prank(CUSTOMER);
        market.requestNewJobs(requests);
    }

    function test_RequestRefusesMoreThanTheAllowance() public {
        vm.prank(CUSTOMER);
        credit.approve(address(market), LOCKED - 1);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, LOCKED - 1, LOCKED));
        _request();
    }

    function test_RequestRefusesMoreThanTheBalance() public {
        vm.prank(CUSTOMER);
        credit.approve(address(market), 100 * LOCKED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 10 * LOCKED, 11 * LOCKED));
        _request(11 * LOCKED);
    }

    // -------------------------------------------------------------------------------------------- the way to RUNNING

    function test_MetaScheduleAssigns() public {
        bytes32 id = _request();
        vm.roll(105);
        expectEmit(address(jobs));
        emit IJobRepository.JobTransitionEvent(id, JobStatus.PENDING, JobStatus.META_SCHEDULED);
        _schedule(id, PROVIDER);

        _isIn(id, JobStatus.META_SCHEDULED);
        same(jobs.get(id).providerAddr, PROVIDER, "provider");
        same(jobs.get(id).time.blockNumberStateChange, 105, "block of the change");
        same(jobs.getState(id).life.assignedAt(), _now(), "assigned at");
        same(jobs.costPerMinute(id), PER_MINUTE, "fixed price");
        _queued(PROVIDER, 1, 0, 0);
    }

    function test_MetaScheduleNeedsAJoinedProvider() public {
        bytes32 id = _request();
        _register(STRANGER, _prices());
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ProviderNotJoined.selector));
        _schedule(id, STRANGER);

        providers.ban(PROVIDER);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ProviderNotJoined.selector));
        _schedule(id, PROVIDER);
    }

    function test_MetaScheduleNeedsAPendingJob() public {
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        _schedule(bytes32(uint256(77)), PROVIDER);

        bytes32 id = _job(JobStatus.META_SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(JobRules.SameStatusError.selector));
        _schedule(id, OTHER);

        _claim(PROVIDER);
        _expectInvalidTransition(JobStatus.SCHEDULED, JobStatus.META_SCHEDULED);
        _schedule(id, OTHER);
    }

    function test_ClaimAnnouncesWhatTheCreditsBuy() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        expectEmit(address(jobs));
        emit IJobRepository.JobTransitionEvent(id, JobStatus.META_SCHEDULED, JobStatus.SCHEDULED);
        expectEmit(address(market));
        emit MarketCore.ClaimJobEvent(CUSTOMER, PROVIDER, id, uint64(LOCKED / PER_MINUTE), _definition());
        _claim(PROVIDER);

        same(providers.getJobCount(PROVIDER), 1, "jobs that the provider claimed");
        _queued(PROVIDER, 0, 0, 0);
    }

    function test_ClaimWithoutJobs() public {
        vm.expectRevert(abi.encodeWithSelector(ProviderJobQueues.NoJob.selector));
        _claim(PROVIDER);
    }

    function test_RunningStampsTheStart() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _pass(90);
        _set(id, JobStatus.RUNNING, 0);
        same(jobs.get(id).time.start, _now(), "start");
        same(jobs.get(id).time.end, 0, "end");
    }

    // --------------------------------------------------------------------------------------- the provider's reports

    function test_ProviderReportsOnlyRunningAndTheEnd() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.RunningColdStatusOnly.selector, JobStatus.SCHEDULED));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.SCHEDULED), 0, "", 0);

        vm.expectRevert(abi.encodeWithSelector(MarketCore.RunningColdStatusOnly.selector, JobStatus.PENDING));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.PENDING), 0, "", 0);
    }

    /// @notice The supervisor that missed RUNNING learns so, reports it and repeats the end.
    function test_EndWithoutRunning() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        JobStatus[2] memory ends = [JobStatus.FINISHED, JobStatus.OUT_OF_CREDITS];
        for (uint256 i = 0; i < ends.length; i++) {
            _expectInvalidTransition(JobStatus.SCHEDULED, ends[i]);
            vm.prank(PROVIDER);
            market.providerSetJobStatus(id, uint8(ends[i]), 1, "", 0);
        }
        _set(id, JobStatus.RUNNING, 0);
        _set(id, JobStatus.FINISHED, 1);
        _isIn(id, JobStatus.FINISHED);
    }

    function test_RepeatsAndLateReports() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.expectRevert(abi.encodeWithSelector(JobRules.SameStatusError.selector));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.RUNNING), 0, "", 0);

        _set(id, JobStatus.FINISHED, 1);
        vm.expectRevert(abi.encodeWithSelector(JobRules.SameStatusError.selector));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.FINISHED), 1, "", 0);

        vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, JobStatus.FINISHED));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.FAILED), 1, "", 0);
    }

    function test_OnlyTheJobsProviderReports() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.JobProviderOnly.selector, OTHER, PROVIDER));
        vm.prank(OTHER);
        market.providerSetJobStatus(id, uint8(JobStatus.RUNNING), 0, "", 0);

        bytes32 pending = _request();
        vm.expectRevert(abi.encodeWithSelector(MarketCore.JobProviderOnly.selector, PROVIDER, address(0)));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(pending, uint8(JobStatus.FAILED), 0, "", 0);
    }

    function test_EndRecordsErrorAndExitCode() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(60);
        expectEmit(address(jobs));
        emit IJobRepository.JobTransitionEvent(id, JobStatus.RUNNING, JobStatus.FAILED);
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.FAILED), 1, "step 3 failed", 137 * 256 + 9);

        Job memory job = jobs.get(id);
        same(bytes(job.lastError), "step 3 failed", "lastError");
        same(uint256(uint64(job.exitCode)), 137 * 256 + 9, "exit code, raw");
        same(job.time.end, _now(), "end");
    }

    function test_FailBeforeRunning() public {
        JobStatus[2] memory from = [JobStatus.META_SCHEDULED, JobStatus.SCHEDULED];
        for (uint256 i = 0; i < from.length; i++) {
            bytes32 id = _job(from[i]);
            _set(id, JobStatus.FAILED, 0);
            _isIn(id, JobStatus.FAILED);
            _queued(PROVIDER, 0, 0, 0);
        }
    }

    // -------------------------------------------------------------------------------------------------------- cancel

    function test_CancelPendingEndsAtOnce() public {
        bytes32 id = _request();
        expectEmit(address(jobs));
        emit IJobRepository.JobTransitionEvent(id, JobStatus.PENDING, JobStatus.CANCELLED);
        _cancel(id);
        Job memory job = jobs.get(id);
        yes(job.hasCancelRequest, "hasCancelRequest");
        same(job.time.end, _now(), "end");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "all refunded");
    }

    function test_CancelGoesThroughTheProvider() public {
        JobStatus[3] memory from = [JobStatus.META_SCHEDULED, JobStatus.SCHEDULED, JobStatus.RUNNING];
        for (uint256 i = 0; i < from.length; i++) {
            bytes32 id = _job(from[i]);
            _cancel(id);
            _isIn(id, from[i]);
            yes(jobs.get(id).hasCancelRequest, "hasCancelRequest");
            same(jobs.get(id).time.cancelRequestTimestamp, _now(), "time of the request");
            yes(queues.hasCancellingJob(PROVIDER), "queued");

            expectEmit(address(market));
            emit MarketCore.ClaimNextCancellingJobEvent(CUSTOMER, PROVIDER, id);
            vm.prank(PROVIDER);
            market.claimNextCancellingJob();
            no(queues.hasCancellingJob(PROVIDER), "noticed");

            _set(id, JobStatus.CANCELLED, 0);
            _isIn(id, JobStatus.CANCELLED);
            _queued(PROVIDER, 0, 0, 0);
        }
    }

    function test_CancelAgainAsksAgain() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _cancel(id);
        uint256 asked = _now();
        _pass(60);
        _cancel(id);
        _queued(PROVIDER, 0, 1, 0);

        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        _cancel(id);
        _queued(PROVIDER, 0, 1, 0);
        same(jobs.get(id).time.cancelRequestTimestamp, asked, "time of the first request");
    }

    function test_CancelOnlyByTheCustomerAndOnlyHot() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerOnly.selector, STRANGER, CUSTOMER));
        vm.prank(STRANGER);
        market.cancelJob(id);

        _set(id, JobStatus.FINISHED, 1);
        vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, JobStatus.FINISHED));
        _cancel(id);
    }

    // --------------------------------------------------------------------------------------------------------- panic

    function test_PanicEndsEveryHotJobAtNoCost() public {
        for (uint8 i = 0; i < 4; i++) {
            bytes32 id = _job(JobStatus(i));
            _pass(600);
            vm.prank(SCHEDULER);
            market.panicJob(id, "lost");

            Job memory job = jobs.get(id);
            same(uint256(job.status), uint256(JobStatus.PANICKED), "status");
            same(job.time.panicTimestamp, _now(), "panic time");
            same(job.time.end, _now(), "end");
            same(bytes(job.lastError), "lost", "reason");
            same(job.cost.finalCost, 0, "cost");
            same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "refund");
            _queued(PROVIDER, 0, 0, 0);
        }
    }

    function test_PanicCallers() public {
        bytes32 id = _job(JobStatus.RUNNING);
        address[2] memory callers = [OTHER, STRANGER];
        for (uint256 i = 0; i < callers.length; i++) {
            vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerMetaSchedulerProviderOnly.selector));
            vm.prank(callers[i]);
            market.panicJob(id, "");
        }
        vm.prank(PROVIDER);
        market.panicJob(id, "the node burnt down");

        vm.expectRevert(abi.encodeWithSelector(JobRules.SameStatusError.selector));
        vm.prank(SCHEDULER);
        market.panicJob(id, "");
    }

    /// @notice A stranger may end what was forgotten, but what it says is not recorded as the job's error.
    function test_AStrangersWordsAreNotRecorded() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.warp(_now() + 30 days);
        _panic(STRANGER, id);
        _isIn(id, JobStatus.PANICKED);
        same(bytes(jobs.get(id).lastError), "", "error");
        bytes32 own = _job(JobStatus.RUNNING);
        _panic(CUSTOMER, own);
        same(bytes(jobs.get(own).lastError), "lost", "the customer's");
    }

    /// @notice Who took notice of a cancel request, and claims the job long after, is told again and has time to
    /// answer.
    function test_AClaimOfWhatIsToBeCancelledIsToldSo() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        _cancel(id);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        _queued(PROVIDER, 1, 0, 0);
        _pass(1 days);
        uint256 deadline = _now() + constants.claimJobTimeout();
        _claim(PROVIDER);
        _queued(PROVIDER, 0, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ProviderInTime.selector, deadline));
        _panic(CUSTOMER, id);
        vm.prank(PROVIDER);
        market.claimNextCancellingJob();
        vm.warp(deadline + 1);
        _panic(STRANGER, id);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "refunded");

        // One that was not told before is told once.
        bytes32 untold = _job(JobStatus.META_SCHEDULED);
        _cancel(untold);
        _claim(PROVIDER);
        _queued(PROVIDER, 0, 1, 0);
        _set(untold, JobStatus.CANCELLED, 0);
        _queued(PROVIDER, 0, 0, 0);
    }

    /// @notice No clock stops a job from ending.
    function test_EndsAtTheEndOfTime() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.roll(1 << 40);
        vm.warp(1 << 40);
        _set(id, JobStatus.FINISHED, 1);
        Job memory job = jobs.get(id);
        same(job.time.end, type(uint32).max, "end");
        same(job.time.blockNumberStateChange, type(uint32).max, "block");
        same(job.cost.finalCost, PER_MINUTE, "billed");
        bytes32 late = _job(JobStatus.RUNNING);
        _cancel(late);
        _set(late, JobStatus.CANCELLED, 0);
        same(jobs.get(late).time.cancelRequestTimestamp, type(uint32).max, "cancel request");
    }

    function _panic(address caller, bytes32 id) private {
        vm.prank(caller);
        market.panicJob(id, "lost");
    }

    function test_CustomersPanicIsFreeBeforeTheClaim() public {
        JobStatus[2] memory from = [JobStatus.PENDING, JobStatus.META_SCHEDULED];
        for (uint256 i = 0; i < from.length; i++) {
            bytes32 id = _job(from[i]);
            _panic(CUSTOMER, id);
            _isIn(id, JobStatus.PANICKED);
            _queued(PROVIDER, 0, 0, 0);
            same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "refund");
        }
    }

    /// @notice Nobody computes for free: what ran is billed as if it was cancelled.
    function test_CustomersPanicOfARunningJobIsBilled() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(90);
        _panic(CUSTOMER, id);
        same(jobs.get(id).cost.finalCost, PER_MINUTE * 3 / 2, "the time that the chain saw");
        same(credit.balanceOf(PROVIDER) + market.withdrawable(), PER_MINUTE * 3 / 2, "paid");

        bytes32 brief = _job(JobStatus.RUNNING);
        _panic(CUSTOMER, brief);
        same(jobs.get(brief).cost.finalCost, PER_MINUTE, "at least the fee");
    }

    /// @notice A provider that died must not keep the credits for ever.
    function test_AnybodyEndsWhatItsProviderForgot() public {
        bytes32 id = _job(JobStatus.RUNNING);
        uint256 deadline = _now() + LOCKED * 60 / PER_MINUTE + 5 minutes;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerMetaSchedulerProviderOnly.selector));
        _panic(STRANGER, id);

        vm.warp(deadline + 1);
        _panic(STRANGER, id);
        _isIn(id, JobStatus.PANICKED);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "a full refund");
    }

    function test_AFreeJobIsNeverForgotten() public {
        _register(PROVIDER, ProviderPrices(0, 0, 0));
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(365 days);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.CustomerMetaSchedulerProviderOnly.selector));
        _panic(STRANGER, id);
        _panic(CUSTOMER, id);
    }

    /// @notice A provider that took a job and died: after a cancel request it has the time of a claim to answer.
    function test_AnybodyEndsWhatWasTakenAndNotCancelled() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ProviderInTime.selector, type(uint256).max));
        _panic(CUSTOMER, id);

        _cancel(id);
        uint256 deadline = _now() + constants.claimJobTimeout();
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.ProviderInTime.selector, deadline));
        _panic(CUSTOMER, id);

        vm.warp(deadline + 1);
        _panic(STRANGER, id);
        _isIn(id, JobStatus.PANICKED);
        _queued(PROVIDER, 0, 0, 0);
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "a full refund");
    }

    // --------------------------------------------------------------------------------------------------------- reads

    function test_ManyJobsInOneCall() public {
        bytes32 first = _request();
        bytes32 second = _job(JobStatus.RUNNING);
        bytes32[] memory ids = new bytes32[](3);
        (ids[0], ids[1], ids[2]) = (second, bytes32(uint256(77)), first);
        Job[] memory found = jobs.getMany(ids);
        same(abi.encode(found[0]), abi.encode(jobs.get(second)), "in the order asked for");
        same(found[1].jobId, bytes32(0), "unknown");
        same(abi.encode(found[2]), abi.encode(jobs.get(first)), "after an unknown one");
    }

    function test_UnknownJobs() public {
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.get(bytes32(uint256(77)));
        (bytes32 id,,,,,,,,,,) = jobs.jobs(bytes32(uint256(77)));
        same(id, bytes32(0), "fields of an unknown job");
        same(jobs.costPerMinute(bytes32(uint256(77))), 0, "price of an unknown job");
    }
}
