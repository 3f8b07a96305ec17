// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Constants} from "../src/Constants.sol";
import {JobState, Life} from "../src/Life.sol";
import {MarketCore} from "../src/MarketCore.sol";
import {IJobRepository} from "../src/interfaces/IJobRepository.sol";
import {IProviderJobQueues} from "../src/interfaces/IProviderJobQueues.sol";
import {IProviderManager} from "../src/interfaces/IProviderManager.sol";
import {JobRules} from "../src/libraries/JobRules.sol";
import {Check} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice What holds for all arguments within the types that the market stores: halmos proves each `check_...`, and
/// forge tries each `testFuzz_...` of the same name. `./prove` runs the proofs.
/// @dev Amounts and prices are 96 bits, times 32 bits: that much the record of jobs keeps.
contract Proofs is MarketCore, Check {
    constructor()
        MarketCore(
            IERC20(address(0)),
            Constants(address(0)),
            IProviderManager(address(0)),
            IProviderJobQueues(address(0)),
            IJobRepository(address(0))
        )
    {}

    // ------------------------------------------------------------------------------------------------------------ bill

    /// @notice A bill is at most what is locked.
    function check_BillIsLocked(uint96 time, uint96 minuteCost, uint96 locked) public pure {
        assert(JobRules.bill(time, minuteCost, locked) <= locked);
    }

    /// @notice Time and price count by their product alone.
    function check_BillIsOfTheProduct(uint32 time, uint96 minuteCost, uint96 locked) public pure {
        uint256 product = uint256(time) * minuteCost;
        assert(JobRules.bill(time, minuteCost, locked) == JobRules.bill(product, 1, locked));
    }

    /// @notice A bill is the product's sixtieth, rounded down, or all that is locked, whichever is less.
    function check_BillIsTheFormula(uint128 product, uint96 locked) public pure {
        uint256 cost = uint256(product) / 60;
        assert(JobRules.bill(1, product, locked) == (cost < locked ? cost : locked));
    }

    /// @notice Saturation is in favour of the customer: it never bills more than the exact cost.
    function check_BillSaturates(uint256 minuteCost, uint96 locked) public pure {
        assert(JobRules.bill(type(uint256).max, minuteCost, locked) <= locked);
        assert(JobRules.bill(0, minuteCost, locked) == 0);
        assert(JobRules.bill(minuteCost, 0, locked) == 0);
    }

    /// @notice What is locked goes to the market, the provider and the customer, to the wei: whatever the share is,
    /// what is left of the bill and of the lock is paid out.
    function check_NoWeiIsLost(uint96 billed, uint96 locked, uint8 cut) public pure {
        if (billed > locked || cut > 100) return;
        uint256 share = uint256(billed) * cut / 100;
        // Reverts, which is no failure here, if the share were more than the bill: testFuzz_ShareOfTheBill tries that.
        uint256 provider = billed - share;
        uint256 refund = locked - billed;
        assert(share + provider + refund == locked);
    }

    // ------------------------------------------------------------------------------------------------------- the bound

    function _job(JobStatus status, uint32 start, bool cancelRequested) private pure returns (JobState memory job) {
        job.life = Life.wrap(0).withStatus(status).withStart(start).withFlag(1, cancelRequested);
    }

    /// @dev A prover's clock stands at 1 unless it is set: a proof about time has to set it to all that it can be.
    function _pass(uint256 start, uint256 time) private {
        vm.warp(start + time);
    }

    function _settings(uint32 delta, uint32 fee) private pure returns (Settings memory settings) {
        (settings.billDurationDeltaMinute, settings.cancellationFeeMinute) = (delta, fee);
    }

    /// @notice Reported seconds: billed as they are up to the chain's and the delta, at the bound beyond it.
    function check_BillableSeconds(uint64 reported, uint32 start, uint32 time, uint16 delta, uint16 fee, uint8 to)
        public
    {
        if (start == 0 || to < 5 || to > 7) return;
        _pass(start, time);
        (uint256 billed, bool tooMuch) =
            _billable(_job(JobStatus.RUNNING, start, true), JobStatus(to), reported, 1, _settings(delta, fee));
        uint256 bound = time + uint256(delta) * 60;
        assert(tooMuch == (reported > bound));
        assert(billed == (reported > bound ? bound : reported));
    }

    /// @notice The same in minutes, where those that have begun are the chain's.
    function check_BillableMinutes(uint64 reported, uint32 start, uint32 time, uint16 delta) public {
        if (start == 0) return;
        _pass(start, time);
        (uint256 billed, bool tooMuch) = _billable(
            _job(JobStatus.RUNNING, start, false), JobStatus.FINISHED, uint256(reported) * 60, 60, _settings(delta, 0)
        );
        uint256 bound = JobRules.startedMinutes(start) * 60 + uint256(delta) * 60;
        uint256 exact = uint256(reported) * 60;
        assert(tooMuch == (exact > bound));
        assert(billed == (exact > bound ? bound : exact));
    }

    /// @notice What never ran, or panicked, costs nothing, whatever is reported.
    function check_NothingForNothing(
        uint64 reported,
        uint32 start,
        uint32 time,
        uint16 delta,
        uint16 fee,
        uint8 to,
        bool cancelled
    ) public {
        if (to < 4 || to > 8 || (start != 0 && to != 8)) return;
        _pass(start, time);
        (uint256 billed, bool tooMuch) =
            _billable(_job(JobStatus.SCHEDULED, start, cancelled), JobStatus(to), reported, 1, _settings(delta, fee));
        assert(billed == 0 && !tooMuch);
    }

    /// @notice A cancelled job that ran costs at least the fee, if its customer asked; else the fee is nothing to it.
    function check_Fee(uint64 reported, uint32 start, uint32 time, uint16 delta, uint16 fee, bool cancelled) public {
        if (start == 0) return;
        _pass(start, time);
        (uint256 billed,) = _billable(
            _job(JobStatus.RUNNING, start, cancelled), JobStatus.CANCELLED, reported, 1, _settings(delta, fee)
        );
        uint256 bound = time + uint256(delta) * 60;
        uint256 counted = reported > bound ? bound : reported;
        uint256 least = uint256(fee) * 60;
        if (cancelled && least > counted) assert(billed == least);
        else assert(billed == counted);
    }

    /// @notice A customer's panic of what runs: the chain's time, at least the fee.
    function check_PanicOfTheCustomer(uint32 start, uint32 time, uint16 fee) public {
        if (start == 0) return;
        _pass(start, time);
        uint256 least = uint256(fee) * 60;
        uint256 billed = _cancelBill(_job(JobStatus.RUNNING, start, false), _settings(0, fee));
        assert(billed == (time > least ? time : least));
    }

    // --------------------------------------------------------------------------------------------------------- minutes

    /// @notice Minutes are the quotient: at most the amount pays for them, and it does not pay for one more.
    function check_MinutesAreTheQuotient(uint96 amount, uint96 minuteCost) public pure {
        if (minuteCost == 0) return;
        uint256 quotient = uint256(amount) / minuteCost;
        uint256 most = type(uint64).max;
        assert(JobRules.minutesFor(amount, minuteCost) == (quotient < most ? quotient : most));
    }

    /// @notice What minutes cost is the product.
    function check_CostIsTheProduct(uint64 duration, uint96 minuteCost) public pure {
        assert(JobRules.costOf(duration, minuteCost) == uint256(duration) * minuteCost);
    }

    /// @notice A free minute can be had for ever, and costs nothing.
    function check_FreeMinutes(uint256 amount, uint256 duration) public pure {
        assert(JobRules.minutesFor(amount, 0) == type(uint64).max);
        assert(JobRules.costOf(duration, 0) == 0);
    }

    /// @notice Minutes that have begun: the time rounded up, which adds less than one.
    /// @custom:halmos --solver z3
    function check_StartedMinutes(uint32 start, uint32 time) public {
        _pass(start, time);
        uint256 rounded = JobRules.startedMinutes(start) * 60;
        assert(rounded >= time);
        assert(rounded < uint256(time) + 60);
    }

    /// @notice Remaining minutes: all before the start, then less by those that have begun, never below none.
    function check_RemainingMinutes(uint96 locked, uint96 minuteCost, uint32 start, uint32 time) public {
        _pass(start, time);
        uint256 total = JobRules.minutesFor(locked, minuteCost);
        uint256 used = start == 0 ? 0 : JobRules.startedMinutes(start);
        assert(JobRules.remainingMinutes(locked, minuteCost, start) == (total > used ? total - used : 0));
    }

    // -------------------------------------------------------------------------------------------------- status machine

    /// @notice The README's table, a row a status: the bits of those that may follow.
    function _table(uint256 from) private pure returns (uint256) {
        if (from == 0) return 1 << 1 | 1 << 4 | 1 << 8;
        if (from == 1) return 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;
        if (from == 2) return 1 << 0 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 8;
        if (from == 3) return 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
        return 0;
    }

    /// @notice All 81 pairs: allowed exactly as in the table.
    function check_StatusMachine(uint8 from, uint8 to) public pure {
        if (from > 8 || to > 8) return;
        bool expected = _table(from) >> to & 1 == 1;
        assert(JobRules.isAllowed(JobStatus(from), JobStatus(to)) == expected);
        // Reverts, which is no failure here, unless it is allowed.
        JobRules.checkNewJobStatus(JobStatus(from), JobStatus(to));
        assert(expected);
    }

    /// @notice A cold status is final, and a status is either hot or cold.
    function check_ColdIsFinal(uint8 from, uint8 to) public pure {
        if (from > 8 || to > 8) return;
        bool cold = JobRules.isJobCold(JobStatus(from));
        assert(cold == (from >= 4));
        assert(JobRules.isJobHot(JobStatus(from)) != cold);
        assert(!cold || !JobRules.isAllowed(JobStatus(from), JobStatus(to)));
        assert(from != to || !JobRules.isAllowed(JobStatus(from), JobStatus(to)));
    }

    // ---------------------------------------------------------------------------------------- the same, tried by forge

    function testFuzz_BillIsLocked(uint96 time, uint96 minuteCost, uint96 locked) public pure {
        check_BillIsLocked(time, minuteCost, locked);
    }

    function testFuzz_BillIsOfTheProduct(uint32 time, uint96 minuteCost, uint96 locked) public pure {
        check_BillIsOfTheProduct(time, minuteCost, locked);
    }

    function testFuzz_BillIsTheFormula(uint128 product, uint96 locked) public pure {
        check_BillIsTheFormula(product, locked);
    }

    function testFuzz_BillSaturates(uint256 minuteCost, uint96 locked) public pure {
        check_BillSaturates(minuteCost, locked);
    }

    function testFuzz_NoWeiIsLost(uint96 billed, uint96 locked, uint8 cut) public pure {
        check_NoWeiIsLost(uint96(within(billed, 0, locked)), locked, uint8(within(cut, 0, 100)));
    }

    function testFuzz_BillableSeconds(uint64 reported, uint32 start, uint32 time, uint16 delta, uint16 fee, uint8 to)
        public
    {
        uint8 end = uint8(within(to, 5, 7));
        check_BillableSeconds(reported, start, time, delta, fee, end);
        check_BillableSeconds(reported % 100_000, start, time % 100_000, delta % 100, fee, end);
    }

    function testFuzz_BillableMinutes(uint64 reported, uint32 start, uint32 time, uint16 delta) public {
        check_BillableMinutes(reported, start, time, delta);
        check_BillableMinutes(reported % 1000, start, time % 100_000, delta % 100);
    }

    function testFuzz_NothingForNothing(
        uint64 reported,
        uint32 start,
        uint32 time,
        uint16 delta,
        uint16 fee,
        uint8 to,
        bool cancelled
    ) public {
        check_NothingForNothing(reported, 0, time, delta, fee, uint8(within(to, 4, 8)), cancelled);
        check_NothingForNothing(reported, start, time, delta, fee, 8, cancelled);
    }

    function testFuzz_Fee(uint64 reported, uint32 start, uint32 time, uint16 delta, uint16 fee, bool cancelled) public {
        check_Fee(reported, start, time, delta, fee, cancelled);
        check_Fee(reported % 100_000, start, time % 100_000, delta % 100, fee % 2000, cancelled);
    }

    function testFuzz_PanicOfTheCustomer(uint32 start, uint32 time, uint16 fee) public {
        check_PanicOfTheCustomer(start, time, fee);
        check_PanicOfTheCustomer(start, time % 100_000, fee % 2000);
    }

    function testFuzz_MinutesAreTheQuotient(uint96 amount, uint96 minuteCost) public pure {
        check_MinutesAreTheQuotient(amount, minuteCost);
        check_MinutesAreTheQuotient(amount, minuteCost >> 64);
    }

    function testFuzz_CostIsTheProduct(uint64 duration, uint96 minuteCost) public pure {
        check_CostIsTheProduct(duration, minuteCost);
    }

    function testFuzz_FreeMinutes(uint256 amount, uint256 duration) public pure {
        check_FreeMinutes(amount, duration);
    }

    function testFuzz_StartedMinutes(uint32 start, uint32 time) public {
        check_StartedMinutes(start, time);
        check_StartedMinutes(start, time % 200);
    }

    function testFuzz_RemainingMinutes(uint96 locked, uint96 minuteCost, uint32 start, uint32 time) public {
        check_RemainingMinutes(locked, minuteCost, start, time);
        check_RemainingMinutes(locked, uint96(within(minuteCost, locked / 1000, locked)), start, time % 100_000);
        check_RemainingMinutes(locked, minuteCost, 0, time);
    }

    function test_ColdIsFinal() public pure {
        for (uint8 i = 0; i < 81; i++) {
            check_ColdIsFinal(i / 9, i % 9);
        }
    }

    // ------------------------------------------------------------- tried only: too much multiplication for a solver

    /// @notice Neither factor of the product is special.
    function testFuzz_FactorsOfTheBill(uint128 product, uint96 locked) public pure {
        same(JobRules.bill(product, 1, locked), JobRules.bill(1, product, locked), "bill");
    }

    /// @notice More time, or a higher price, costs no less.
    function testFuzz_BillGrowsWithTimeAndPrice(uint32[2] memory times, uint96[2] memory prices, uint96 locked)
        public
        pure
    {
        (uint32 time, uint32 longer) = times[0] < times[1] ? (times[0], times[1]) : (times[1], times[0]);
        (uint96 price, uint96 dearer) = prices[0] < prices[1] ? (prices[0], prices[1]) : (prices[1], prices[0]);
        uint256 bill = JobRules.bill(time, price, locked);
        yes(bill <= JobRules.bill(longer, price, locked), "more time");
        yes(bill <= JobRules.bill(time, dearer, locked), "a higher price");
    }

    /// @notice Minutes that an amount buys cost at most the amount, one more would cost more, and what minutes cost
    /// buys them again.
    function testFuzz_MinutesAndCosts(uint96 amount, uint96 minuteCost, uint64 duration) public pure {
        minuteCost = uint96(within(minuteCost, 1, type(uint96).max - 1));
        uint256 bought = JobRules.minutesFor(amount, minuteCost);
        yes(JobRules.costOf(bought, minuteCost) <= amount, "affordable");
        if (bought != type(uint64).max) yes(JobRules.costOf(bought + 1, minuteCost) > amount, "one more is not");
        same(JobRules.minutesFor(JobRules.costOf(duration, minuteCost), minuteCost), duration, "there and back");
    }

    /// @notice Anybody may end what runs only once the time after which all that is locked would be billed is over, and
    /// the delta.
    function testFuzz_SilenceIsWhatIsPaidFor(uint96 locked, uint96 minuteCost, uint32 start, uint16 delta) public pure {
        minuteCost = uint96(within(minuteCost, 1, locked == 0 ? 1 : locked));
        JobState memory job = _job(JobStatus.RUNNING, start, false);
        (job.maxCost, job.costPerMinute) = (locked, minuteCost);
        uint256 paid = _lastBilledSecond(job, _settings(delta, 0)) - start - uint256(delta) * 60;
        yes(paid * minuteCost <= uint256(locked) * 60, "paid for");
        same(JobRules.bill(paid + 1, minuteCost, locked), locked, "all is billed a second later");
        job.costPerMinute = 0;
        same(_lastBilledSecond(job, _settings(delta, 0)), type(uint256).max, "a free job is paid for ever");
    }

    /// @notice The market's share is at most the bill: nothing of it at 0 %, all of it at 100 %.
    function testFuzz_ShareOfTheBill(uint96 billed, uint8 cut) public pure {
        cut = uint8(within(cut, 0, 100));
        uint256 share = uint256(billed) * cut / 100;
        yes(share <= billed, "at most the bill");
        if (cut == 0) same(share, 0, "nothing");
        if (cut == 100) same(share, billed, "all");
    }
}
