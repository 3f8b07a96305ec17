// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice Drives a market through random lives of jobs. It takes only steps that the market's reads call possible, and
/// no step may then revert.
contract MarketHandler is Market {
    address[2] internal staff = [PROVIDER, OTHER];

    constructor() {
        _open();
    }

    function request(uint256 locked, bool delegate) external {
        locked = within(locked, 1000, 200 * PER_MINUTE);
        _fund(CUSTOMER, locked);
        vm.prank(CUSTOMER);
        market.requestNewJob(_definition(), locked, "", delegate);
    }

    function schedule(uint256 seed, bool other) external {
        address provider = staff[other ? 1 : 0];
        (bytes32 id, bool found) = _pick(seed, JobStatus.PENDING);
        if (!found) return;
        // The form for many leaves out what is not affordable.
        (bytes32[] memory ids, address[] memory to) = (new bytes32[](1), new address[](1));
        (ids[0], to[0]) = (id, provider);
        vm.prank(SCHEDULER);
        market.metaScheduleMany(ids, to);
    }

    /// @notice What a supervisor does at each poll.
    function poll(bool other) external {
        address provider = staff[other ? 1 : 0];
        if (queues.hasNextClaimableJob(provider)) _claim(provider);
        if (queues.hasCancellingJob(provider)) {
            vm.prank(provider);
            market.claimNextCancellingJob();
        }
        if (queues.hasTopUpJob(provider)) {
            vm.prank(provider);
            market.claimNextTopUpJob();
        }
    }

    function start(uint256 seed) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.SCHEDULED);
        if (found) _set(id, JobStatus.RUNNING, 0);
    }

    function end(uint256 seed, uint8 status, uint16 duration) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.RUNNING);
        if (found) _set(id, JobStatus(within(status, 4, 8)), duration);
    }

    function failEarly(uint256 seed, bool claimed) external {
        (bytes32 id, bool found) = _pick(seed, claimed ? JobStatus.SCHEDULED : JobStatus.META_SCHEDULED);
        if (found) _set(id, JobStatus.FAILED, 1);
    }

    function refuse(uint256 seed, bool claimed) external {
        (bytes32 id, bool found) = _pick(seed, claimed ? JobStatus.SCHEDULED : JobStatus.META_SCHEDULED);
        if (!found) return;
        address provider = jobs.providerOf(id);
        vm.prank(provider);
        market.refuseJob(id);
    }

    function timeout(uint256 seed) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.META_SCHEDULED);
        if (!found) return;
        _pass(constants.claimJobTimeout());
        market.timeoutJob(id);
    }

    function cancel(uint256 seed, uint8 status) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus(within(status, 0, 3)));
        if (found) _cancel(id);
    }

    function panic(uint256 seed, uint8 status) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus(within(status, 0, 3)));
        if (!found) return;
        vm.prank(SCHEDULER);
        market.panicJob(id, "lost");
    }

    function topUp(uint256 seed, uint256 amount, bool running) external {
        (bytes32 id, bool found) = _pick(seed, running ? JobStatus.RUNNING : JobStatus.SCHEDULED);
        if (!found) return;
        amount = jobs.costPerMinute(id) + within(amount, 1, 10 * PER_MINUTE);
        _fund(CUSTOMER, amount);
        vm.prank(CUSTOMER);
        market.topUpJob(id, amount);
    }

    function ban(bool other) external {
        address provider = staff[other ? 1 : 0];
        if (providers.isBanned(provider)) providers.unban(provider);
        else providers.ban(provider);
    }

    function reprice(uint64 price) external {
        _register(PROVIDER, ProviderPrices({gpuPricePerMin: price, cpuPricePerMin: price, memPricePerMin: price}));
    }

    function withdraw(uint256 amount) external {
        market.withdrawAdmin(within(amount, 0, market.withdrawable()));
    }

    function pass(uint16 time) external {
        _pass(time);
    }

    // ------------------------------------------------------------------------------------------------------- checks

    function checkCredits() external view {
        uint256 locked;
        for (uint256 i = 1; i <= jobs.jobIdCounter(); i++) {
            Job memory job = jobs.get(bytes32(i));
            if (job.status <= JobStatus.RUNNING) locked += job.cost.maxCost;
            else if (job.time.start == 0) same(job.cost.finalCost, 0, "cost of a job that never ran");
            yes(job.cost.finalCost <= job.cost.maxCost, "billed at most what was locked");
        }
        same(credit.balanceOf(address(market)), locked + market.withdrawable(), "the market's balance");
    }

    function checkQueues() external view {
        for (uint256 p = 0; p < staff.length; p++) {
            uint256 claimable;
            uint256 toppedUp;
            uint256 cancelRequests;
            for (uint256 i = 1; i <= jobs.jobIdCounter(); i++) {
                Job memory job = jobs.get(bytes32(i));
                if (job.status > JobStatus.RUNNING || job.providerAddr != staff[p]) continue;
                if (job.status == JobStatus.META_SCHEDULED) claimable++;
                if (job.cost.pendingTopUp > 0) toppedUp++;
                if (job.hasCancelRequest) cancelRequests++;
            }
            same(queues.getClaimableJobQueueSize(staff[p]), claimable, "the assigned jobs are those to claim");
            same(queues.getTopUpJobQueueSize(staff[p]), toppedUp, "the topped-up jobs are those to notice");
            yes(queues.getCancellingJobQueueSize(staff[p]) <= cancelRequests, "only hot jobs are to cancel");
        }
    }

    /// @dev The first job of that status from a random one on.
    function _pick(uint256 seed, JobStatus status) private view returns (bytes32, bool) {
        uint256 count = jobs.jobIdCounter();
        for (uint256 i = 0; i < count; i++) {
            bytes32 id = bytes32((seed % count + i) % count + 1);
            if (jobs.getState(id).life.status() == status) return (id, true);
        }
        return (0, false);
    }
}

/// @notice What holds at any time, whatever happened.
contract InvariantTest {
    MarketHandler private handler;
    address[] private targets;

    function setUp() public {
        handler = new MarketHandler();
        targets.push(address(handler));
    }

    function targetContracts() external view returns (address[] memory) {
        return targets;
    }

    function invariant_EveryLockedCreditIsThere() public view {
        handler.checkCredits();
    }

    function invariant_QueuesHoldWhatIsToDo() public view {
        handler.checkQueues();
    }
}
