// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobStore} from "../src/JobStore.sol";
import {JobRules} from "../src/libraries/JobRules.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice Who may call what.
contract RolesTest is MarketTest {
    // ------------------------------------------------------------------------------------------------- MetaScheduler

    function test_MetaSchedulerRole() public {
        bytes32 id = _request();
        bytes32 role = market.METASCHEDULER_ROLE();
        address[3] memory others = [CUSTOMER, PROVIDER, address(this)];
        for (uint256 i = 0; i < others.length; i++) {
            _expectUnauthorized(others[i], role);
            vm.prank(others[i]);
            market.metaSchedule(id, PROVIDER);
        }
    }

    function test_AdminOfTheMarket() public {
        bytes32 role = market.DEFAULT_ADMIN_ROLE();
        _expectUnauthorized(SCHEDULER, role);
        vm.prank(SCHEDULER);
        market.setEnableRequestNewJob(false);
        _expectUnauthorized(SCHEDULER, role);
        vm.prank(SCHEDULER);
        market.withdrawAdmin(0);

        yes(market.enableRequestNewJob(), "open at first");
        market.setEnableRequestNewJob(false);
        no(market.enableRequestNewJob(), "closed by the admin");
    }

    // ------------------------------------------------------------------------------------------------- JobRepository

    /// @notice Every write of the repository, by its admin: refused.
    function test_OnlyTheMarketWritesJobs() public {
        bytes32 id = _request();
        Job memory job = jobs.get(id);
        bytes[23] memory calls = [
            abi.encodeCall(jobs.create, (job)),
            abi.encodeCall(jobs.update, (job)),
            abi.encodeCall(jobs.open, (STRANGER, 1, false, 0, "")),
            abi.encodeCall(jobs.assign, (id, PROVIDER, _prices(), 0)),
            abi.encodeCall(jobs.release, (id)),
            abi.encodeCall(jobs.claim, (id)),
            abi.encodeCall(jobs.start, (id)),
            abi.encodeCall(jobs.end, (id, JobStatus.CANCELLED, 0, 0)),
            abi.encodeCall(jobs.addCredits, (id, 1, false)),
            abi.encodeCall(jobs.noticeTopUp, (id)),
            abi.encodeCall(jobs.requestCancel, (id)),
            abi.encodeCall(jobs.noticeCancel, (id)),
            abi.encodeCall(jobs.setDelegate, (id, true, 1)),
            abi.encodeCall(jobs.setJobStatus, (id, JobStatus.PANICKED)),
            abi.encodeCall(jobs.setCustomerAddr, (id, STRANGER)),
            abi.encodeCall(jobs.setProviderAddr, (id, PROVIDER)),
            abi.encodeCall(jobs.setDefinition, (id, _definition())),
            abi.encodeCall(jobs.setCost, (id, job.cost)),
            abi.encodeCall(jobs.setTime, (id, job.time)),
            abi.encodeCall(jobs.setJobName, (id, "other")),
            abi.encodeCall(jobs.setHasCancelRequest, (id, true)),
            abi.encodeCall(jobs.setLastError, (id, "other")),
            abi.encodeCall(jobs.setExitCode, (id, 1))
        ];
        bytes memory refused = abi.encodeWithSignature(
            "AccessControlUnauthorizedAccount(address,bytes32)", address(this), jobs.METASCHEDULER_ROLE()
        );
        for (uint256 i = 0; i < calls.length; i++) {
            (bool done, bytes memory answer) = address(jobs).call(calls[i]);
            no(done, "written");
            same(answer, refused, "answer");
        }
    }

    function test_SettersOfTheMarket() public {
        bytes32 id = _request();
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
        JobDefinition memory definition = _definition();
        definition.uses = _labels();
        JobCost memory cost = JobCost(1, 2, 3, true);
        JobTime memory time = JobTime(1, 2, 3, 4, 5, 6);

        jobs.setProviderAddr(id, OTHER);
        jobs.setDefinition(id, definition);
        jobs.setCost(id, cost);
        jobs.setTime(id, time);
        jobs.setJobName(id, "other");
        jobs.setHasCancelRequest(id, true);
        jobs.setLastError(id, "error");
        jobs.setExitCode(id, -1);

        Job memory job = jobs.get(id);
        same(job.providerAddr, OTHER, "provider");
        same(abi.encode(job.definition), abi.encode(definition), "definition");
        same(abi.encode(job.cost), abi.encode(cost), "cost");
        same(abi.encode(job.time), abi.encode(time), "time");
        same(job.jobName, bytes32("other"), "jobName");
        yes(job.hasCancelRequest, "hasCancelRequest");
        same(bytes(job.lastError), "error", "lastError");
        yes(job.exitCode == -1, "exitCode");
    }

    function test_UpdateKeepsTheStatusMachine() public {
        bytes32 first = _request();
        _request();
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));

        Job memory job = jobs.get(first);
        job.status = JobStatus.RUNNING;
        _expectInvalidTransition(JobStatus.PENDING, JobStatus.RUNNING);
        jobs.update(job);

        job.status = JobStatus.PANICKED;
        job.customerAddr = STRANGER;
        jobs.update(job);
        _isIn(first, JobStatus.PANICKED);

        same(jobs.get(first).customerAddr, STRANGER, "customer");
        same(jobs.getByCustomer(CUSTOMER).length, 2, "who requested it keeps it in the list");
        same(jobs.getByCustomer(STRANGER).length, 0, "a list is of requests");

        vm.expectRevert(abi.encodeWithSelector(JobRules.JobHotStatusOnly.selector, JobStatus.PANICKED));
        jobs.setJobStatus(first, JobStatus.CANCELLED);
    }

    function test_JobChangesHands() public {
        bytes32 id = _request();
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
        jobs.setCustomerAddr(id, STRANGER);
        same(jobs.get(id).customerAddr, STRANGER, "customer");
        same(jobs.getByCustomer(CUSTOMER)[0], id, "who requested it keeps it in the list");

        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.setCustomerAddr(id, address(0));
    }

    function test_NoWritesToUnknownJobs() public {
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.setJobName(bytes32(uint256(77)), "x");
    }

    // ------------------------------------------------------------------------------------------------------- queues

    function test_OnlyTheMarketWritesQueues() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        bytes[8] memory calls = [
            abi.encodeCall(queues.pushClaimableJob, (PROVIDER, id)),
            abi.encodeCall(queues.pushCancellingJob, (PROVIDER, id)),
            abi.encodeCall(queues.pushTopUpJob, (PROVIDER, id)),
            abi.encodeCall(queues.popNextClaimableJob, (PROVIDER)),
            abi.encodeCall(queues.popNextCancellingJob, (PROVIDER)),
            abi.encodeCall(queues.popNextTopUpJob, (PROVIDER)),
            abi.encodeCall(queues.pop, (PROVIDER, QueueKind.CLAIMABLE, 1)),
            abi.encodeCall(queues.drop, (PROVIDER, QueueKind.CLAIMABLE))
        ];
        bytes memory refused = abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", address(this));
        for (uint256 i = 0; i < calls.length; i++) {
            (bool done, bytes memory answer) = address(queues).call(calls[i]);
            no(done, "written");
            same(answer, refused, "answer");
        }
    }

    // ---------------------------------------------------------------------------------------------------- providers

    function test_OnlyOperatorsDecideOnProviders() public {
        bytes[4] memory calls = [
            abi.encodeCall(providers.approve, (OTHER)),
            abi.encodeCall(providers.remove, (OTHER)),
            abi.encodeCall(providers.ban, (OTHER)),
            abi.encodeCall(providers.unban, (OTHER))
        ];
        bytes32 role = providers.METASCHEDULER_ROLE();
        for (uint256 i = 0; i < calls.length; i++) {
            vm.prank(STRANGER);
            (bool done, bytes memory answer) = address(providers).call(calls[i]);
            no(done, "decided");
            same(
                answer,
                abi.encodeWithSignature("AccessControlUnauthorizedAccount(address,bytes32)", STRANGER, role),
                "answer"
            );
        }
    }

    function test_OnlyTheMarketCountsJobs() public {
        _expectUnauthorized(address(this), providers.METASCHEDULER_CONTRACT_ROLE());
        providers.incJobCount(PROVIDER);
    }

    // ---------------------------------------------------------------------------------------------------- constants

    function test_OwnerSetsConstants() public {
        constants.setMinimumAmount(1);
        constants.setDeepsquareCut(100);
        constants.setBillDurationDeltaMinute(3);
        constants.setCancellationFeeMinute(4);
        constants.setClaimJobTimeout(5);
        constants.setTopUpSliceDurationMin(6);
        same(constants.minimumAmount(), 1, "minimumAmount");
        same(constants.deepsquareCut(), 100, "deepsquareCut");
        same(constants.billDurationDeltaMinute(), 3, "billDurationDeltaMinute");
        same(constants.cancellationFeeMinute(), 4, "cancellationFeeMinute");
        same(constants.claimJobTimeout(), 5, "claimJobTimeout");
        same(constants.topUpSliceDurationMin(), 6, "topUpSliceDurationMin");

        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 101, 0, 100));
        constants.setDeepsquareCut(101);
    }

    function test_OnlyTheOwnerSetsConstants() public {
        bytes[6] memory calls = [
            abi.encodeCall(constants.setMinimumAmount, (1)),
            abi.encodeCall(constants.setDeepsquareCut, (1)),
            abi.encodeCall(constants.setBillDurationDeltaMinute, (1)),
            abi.encodeCall(constants.setCancellationFeeMinute, (1)),
            abi.encodeCall(constants.setClaimJobTimeout, (1)),
            abi.encodeCall(constants.setTopUpSliceDurationMin, (1))
        ];
        for (uint256 i = 0; i < calls.length; i++) {
            vm.prank(STRANGER);
            (bool done, bytes memory answer) = address(constants).call(calls[i]);
            no(done, "set");
            same(answer, abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER), "answer");
        }
    }

    // ------------------------------------------------------------------------------------------------------- credit

    function test_OnlyTheOwnerMints() public {
        same(credit.decimals(), 18, "decimals");
        credit.mint(STRANGER, 5);
        same(credit.balanceOf(STRANGER), 5, "minted");
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        vm.prank(STRANGER);
        credit.mint(STRANGER, 5);
    }

    function test_RelativeAllowances() public {
        credit.approve(STRANGER, 10);
        credit.increaseAllowance(STRANGER, 5);
        same(credit.allowance(address(this), STRANGER), 15, "more");
        credit.decreaseAllowance(STRANGER, 12);
        same(credit.allowance(address(this), STRANGER), 3, "less");
        vm.expectRevert(abi.encodeWithSignature("ERC20InsufficientAllowance(address,uint256,uint256)", STRANGER, 3, 4));
        credit.decreaseAllowance(STRANGER, 4);
    }
}
