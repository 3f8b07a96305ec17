// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {Tools} from "../src/Tools.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice What a job costs, to the wei, and where every wei goes.
contract BillingTest is MarketTest {
    Tools internal tools;

    function setUp() public override {
        super.setUp();
        tools = new Tools();
    }

    // ------------------------------------------------------------------------------------------------ the price of it

    /// @notice The reference's prices: 16 tasks of 4 CPUs and 2000 MB a CPU, 2 GPUs.
    function test_CostOfAMinute() public view {
        JobDefinition memory definition = _definition();
        (definition.ntasks, definition.cpusPerTask, definition.memPerCpu, definition.gpus) = (16, 4, 2000, 2);
        ProviderPrices memory prices =
            ProviderPrices({gpuPricePerMin: 8.5e18, cpuPricePerMin: 0.95e18, memPricePerMin: 8e13});
        // 64 CPUs * 0.95 + 64 * 2000 MB * 0.00008 + 2 GPUs * 8.5
        uint256 minute = 60.8e18 + 10.24e18 + 17e18;
        same(tools.convertDurationToCredit(definition, prices, 1), minute, "a minute");
        same(tools.convertDurationToCredit(definition, prices, 90), 90 * minute, "90 minutes");
        same(tools.convertCreditToDuration(definition, prices, 90 * minute - 1), 89, "a wei short of 90 minutes");
        same(tools.convertCreditToDuration(definition, prices, 90 * minute), 90, "90 minutes' worth");
    }

    function test_PricesAreFixedAtTheAssignment() public {
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        _register(PROVIDER, ProviderPrices({gpuPricePerMin: 1, cpuPricePerMin: 1, memPricePerMin: 1}));
        same(providers.getProviderPrices(PROVIDER).cpuPricePerMin, 1, "the new price is for new jobs");
        same(jobs.costPerMinute(id), PER_MINUTE, "the old one for this job");

        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _pass(120);
        _set(id, JobStatus.FINISHED, 2);
        same(jobs.get(id).cost.finalCost, 2 * PER_MINUTE, "billed at the fixed price");
    }

    // ------------------------------------------------------------------------------------------------ who gets what

    function test_BillRefundAndCut() public {
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(7 minutes);
        _set(id, JobStatus.FINISHED, 7);

        uint256 bill = 7 * PER_MINUTE;
        same(jobs.get(id).cost.finalCost, bill, "finalCost");
        same(jobs.get(id).cost.maxCost, LOCKED, "maxCost");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED - bill, "the customer paid the bill and no more");
        same(credit.balanceOf(PROVIDER), bill - bill / 10, "the provider got 90 %");
        same(market.withdrawable(), bill / 10, "the market keeps 10 %");
        same(credit.balanceOf(address(market)), bill / 10, "and holds nothing else");
    }

    function test_EveryEndBillsTheTime() public {
        JobStatus[3] memory ends = [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.OUT_OF_CREDITS];
        for (uint256 i = 0; i < ends.length; i++) {
            bytes32 id = _job(JobStatus.RUNNING);
            _pass(3 minutes);
            _set(id, ends[i], 3);
            same(jobs.get(id).cost.finalCost, 3 * PER_MINUTE, "finalCost");
        }
    }

    function test_NeverStartedOrPanickedCostsNothing() public {
        bytes32 failed = _job(JobStatus.SCHEDULED);
        _pass(10 minutes);
        _set(failed, JobStatus.FAILED, 10);
        bytes32 cancelled = _job(JobStatus.SCHEDULED);
        _cancel(cancelled);
        _set(cancelled, JobStatus.CANCELLED, 10);
        bytes32 panicked = _job(JobStatus.RUNNING);
        _pass(10 minutes);
        _set(panicked, JobStatus.PANICKED, 10);

        same(jobs.get(failed).cost.finalCost, 0, "could not start");
        same(jobs.get(cancelled).cost.finalCost, 0, "cancelled before it ran");
        same(jobs.get(panicked).cost.finalCost, 0, "panicked");
        same(credit.balanceOf(CUSTOMER), 10 * LOCKED, "all refunded");
        same(credit.balanceOf(PROVIDER), 0, "nothing earned");
    }

    // -------------------------------------------------------------------------------------------------------- bounds

    function test_BoundIsTheTimeOnChainRoundedUpPlusTheDelta() public {
        constants.setBillDurationDeltaMinute(2);
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(3 minutes + 1);
        _set(id, JobStatus.FINISHED, 6);
        same(jobs.get(id).cost.finalCost, 6 * PER_MINUTE, "4 started minutes and 2");
    }

    function test_BeyondTheBound() public {
        constants.setBillDurationDeltaMinute(2);
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(3 minutes + 1);
        expectEmit(address(market));
        emit MarketCore.BilledTooMuchEvent(id, PROVIDER, 6 * PER_MINUTE);
        _set(id, JobStatus.FINISHED, 7);
        same(jobs.get(id).cost.finalCost, 6 * PER_MINUTE, "billed at the bound");
    }

    /// @notice RUNNING was late, the end follows in the same block: the delta pays an honest provider.
    function test_LateRunning() public {
        bytes32 id = _job(JobStatus.SCHEDULED);
        _set(id, JobStatus.RUNNING, 0);
        _set(id, JobStatus.FINISHED, 4);
        same(jobs.get(id).cost.finalCost, 4 * PER_MINUTE, "finalCost");
    }

    function test_AtMostWhatIsLocked() public {
        bytes32 id = _request(5 * PER_MINUTE + 3);
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _pass(10 minutes);
        _set(id, JobStatus.OUT_OF_CREDITS, 10);
        same(jobs.get(id).cost.finalCost, 5 * PER_MINUTE + 3, "finalCost");
    }

    /// @notice A price that no purchase can pay makes no job that cannot end: it gets none.
    function test_AbsurdPriceGetsNoJob() public {
        uint256 top = type(uint96).max;
        _register(PROVIDER, ProviderPrices({gpuPricePerMin: top, cpuPricePerMin: top, memPricePerMin: 0}));
        bytes32 id = _request();
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, LOCKED, 10 * top));
        _schedule(id, PROVIDER);
        _isIn(id, JobStatus.PENDING);
        _queued(PROVIDER, 0, 0, 0);

        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, top + 1, 0, top));
        _register(PROVIDER, ProviderPrices({gpuPricePerMin: top + 1, cpuPricePerMin: 0, memPricePerMin: 0}));
    }

    function test_CreditsThatBuyNoMinuteAreRefused() public {
        bytes32 id = _request(PER_MINUTE - 1);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, PER_MINUTE - 1, PER_MINUTE));
        _schedule(id, PROVIDER);
        _schedule(_request(PER_MINUTE), PROVIDER);
    }

    function test_FreeProvider() public {
        _register(PROVIDER, ProviderPrices({gpuPricePerMin: 0, cpuPricePerMin: 0, memPricePerMin: 0}));
        bytes32 id = _job(JobStatus.META_SCHEDULED);
        expectEmit(address(market));
        emit MarketCore.ClaimJobEvent(CUSTOMER, PROVIDER, id, type(uint64).max, _definition());
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _set(id, JobStatus.FINISHED, 1);
        same(jobs.get(id).cost.finalCost, 0, "finalCost");
    }

    // ------------------------------------------------------------------------------------------------------- cancelled

    function test_CancellationFee() public {
        constants.setCancellationFeeMinute(4);
        bytes32 id = _job(JobStatus.RUNNING);
        _cancel(id);
        _set(id, JobStatus.CANCELLED, 1);
        same(jobs.get(id).cost.finalCost, 4 * PER_MINUTE, "at least the fee");

        bytes32 longer = _job(JobStatus.RUNNING);
        _pass(6 minutes);
        _cancel(longer);
        _set(longer, JobStatus.CANCELLED, 6);
        same(jobs.get(longer).cost.finalCost, 6 * PER_MINUTE, "the time where it is more");
    }

    /// @notice The fee is for a customer's change of mind, not a provider's.
    function test_NoFeeWithoutARequest() public {
        constants.setCancellationFeeMinute(4);
        bytes32 id = _job(JobStatus.RUNNING);
        _set(id, JobStatus.CANCELLED, 1);
        same(jobs.get(id).cost.finalCost, PER_MINUTE, "finalCost");
    }

    // ---------------------------------------------------------------------------------------------------------- admin

    function test_WithdrawTakesTheCutOnly() public {
        bytes32 ended = _job(JobStatus.RUNNING);
        _pass(10 minutes);
        _set(ended, JobStatus.FINISHED, 10);
        _request();

        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, PER_MINUTE, PER_MINUTE + 1));
        market.withdrawAdmin(PER_MINUTE + 1);

        market.withdrawAdmin(PER_MINUTE);
        same(credit.balanceOf(address(this)), PER_MINUTE, "withdrawn");
        same(market.withdrawable(), 0, "left to withdraw");
        same(credit.balanceOf(address(market)), LOCKED, "the hot job's credits stay");
    }

    // ----------------------------------------------------------------------------------------------------------- fuzz

    /// @notice Whatever is locked, charged, reported and how long it took: locked == billed + refunded, and the
    /// market's balance is what it may keep.
    function testFuzz_EveryWeiHasAPlace(
        uint256 locked,
        uint64[4] memory size,
        uint96[3] memory price,
        uint64 reported,
        uint32 time,
        uint8 cut,
        uint8 end
    ) public {
        locked = within(locked, 1000, 10 * LOCKED);
        time /= 2;
        constants.setDeepsquareCut(within(cut, 0, 100));
        JobStatus status = JobStatus(within(end, 4, 8));
        JobDefinition memory definition = _definition();
        definition.ntasks = uint64(within(size[0], 1, type(uint64).max));
        definition.cpusPerTask = uint64(within(size[1], 1, type(uint64).max));
        definition.memPerCpu = uint64(within(size[2], 1, type(uint64).max));
        definition.gpus = size[3];
        ProviderPrices memory prices = ProviderPrices(price[0], price[1], price[2] >> 32);
        _register(PROVIDER, prices);

        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, locked, "", false);
        uint256 minute = tools.convertDurationToCredit(definition, prices, 1);
        if (minute > locked) {
            vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, locked, minute));
            _schedule(id, PROVIDER);
            return;
        }
        _schedule(id, PROVIDER);
        _claim(PROVIDER);
        _set(id, JobStatus.RUNNING, 0);
        _pass(time);
        _set(id, status, reported);

        uint256 billed = jobs.get(id).cost.finalCost;
        uint256 refunded = credit.balanceOf(CUSTOMER) - (10 * LOCKED - locked);
        same(billed + refunded, locked, "locked == billed + refunded");
        same(credit.balanceOf(PROVIDER) + market.withdrawable(), billed, "billed == the provider's + the market's");
        same(credit.balanceOf(address(market)), market.withdrawable(), "the market holds its share only");
        same(market.withdrawable(), billed * constants.deepsquareCut() / 100, "the share");
    }

    /// @notice The bill against the rule written down once more.
    function testFuzz_Bill(uint64 reported, uint32 time, uint8 delta) public {
        time /= 2;
        delta = delta == 0 ? 1 : delta;
        constants.setBillDurationDeltaMinute(delta);
        bytes32 id = _job(JobStatus.RUNNING);
        _pass(time);
        _set(id, JobStatus.FINISHED, reported);

        uint256 bound = (uint256(time) + 59) / 60 + delta;
        uint256 expected = (reported < bound ? reported : bound) * PER_MINUTE;
        same(jobs.get(id).cost.finalCost, expected < LOCKED ? expected : LOCKED, "finalCost");
    }
}
