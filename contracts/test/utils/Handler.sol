// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Tools} from "../../src/Tools.sol";
import {LifeWord} from "../../src/Life.sol";
import {Market} from "./Market.sol";
import "../../src/Types.sol";

/// @notice Plays all parties of a market at random, and keeps a model beside it: who must own how much, what each job's
/// price is, what ended how. Takes only steps that the market's reads call possible; none of them may revert.
contract Handler is Market {
    /// @dev What the model knows of a job.
    struct Ghost {
        JobStatus status;
        address customer;
        uint256 price;
        uint256 assigned;
        uint256 claimed;
        uint256 start;
        bool authority;
        uint256 capLeft;
        /// @dev Once cold, the whole job.
        bytes32 digest;
    }

    uint256 private constant ANY = type(uint256).max;
    address internal constant ATTACKER = address(0xBAD);
    address internal constant ADMIN_PURSE = address(0xAD);

    address[3] internal customers = [CUSTOMER, address(0xC1), address(0xC2)];
    /// @dev The last one's prices are such that nothing divides them.
    address[3] internal staff = [PROVIDER, OTHER, address(0xB3)];

    Tools internal tools = new Tools();
    bytes32[] internal hot;
    bytes32[] internal cold;
    mapping(bytes32 => Ghost) internal ghosts;
    /// @dev The time that was last reported of a job, in seconds; whether in minutes.
    mapping(bytes32 => uint256) internal reported;
    mapping(bytes32 => bool) internal inMinutes;
    /// @dev What the panic that is tried shall bill.
    uint256 internal panicBill;
    mapping(address => uint256) internal owned;
    mapping(address => mapping(bytes32 => bytes32)) internal jobOfKey;
    uint256 internal minted;
    uint256 internal shares;

    /// @notice What was seen to be wrong, by the number of the invariant.
    mapping(uint256 => string) public breach;

    constructor() {
        _open();
        minted = credit.totalSupply();
        owned[CUSTOMER] = minted;
        _join(staff[2]);
        _register(staff[2], ProviderPrices(3e15 + 1, 7e15 + 3, 1e15 + 7));
    }

    // ----------------------------------------------------------------------------------------------------- purchases

    function buy(uint256 who, uint256 locked, bool delegate, uint256 steps) external {
        if (hot.length > 20) return;
        address customer = customers[who % 3];
        locked = constants.minimumAmount() + _upTo(200 * PER_MINUTE, locked);
        _give(customer, locked);
        vm.prank(customer);
        _bought(customer, market.requestNewJob(_definition(), locked, "", delegate), locked, delegate, ANY);
        _advance(steps);
    }

    function buyMany(uint256 who, uint256 locked, uint8[3] memory keys, uint256 cap, uint256 steps) external {
        if (hot.length > 20) return;
        address customer = customers[who % 3];
        locked = constants.minimumAmount() + _upTo(50 * PER_MINUTE, locked);
        JobRequest[] memory requests = new JobRequest[](3);
        for (uint256 i = 0; i < 3; i++) {
            uint256 capOf = i == 0 ? ANY : _upTo(2 * _slice(PER_MINUTE), cap);
            requests[i] = JobRequest(_definition(), locked, "job", i > 0, capOf, bytes32(uint256(keys[i] % 8)));
        }
        uint256 before = jobs.jobIdCounter();
        _give(customer, 3 * locked);
        vm.prank(customer);
        bytes32[] memory ids = market.requestNewJobs(requests);
        for (uint256 i = 0; i < 3; i++) {
            bytes32 known = jobOfKey[customer][requests[i].key];
            if (requests[i].key != 0 && known != 0) {
                if (ids[i] != known) breach[2] = "a key bought twice";
                continue;
            }
            if (uint256(ids[i]) <= before) breach[2] = "a purchase without a job";
            if (requests[i].key != 0) jobOfKey[customer][requests[i].key] = ids[i];
            _bought(customer, ids[i], locked, i > 0, requests[i].delegateCap);
        }
        _advance(steps);
    }

    /// @notice While the market is closed nobody buys, but a key still tells what it bought.
    function buyWhileClosed(uint256 who, uint8 key) external {
        address customer = customers[who % 3];
        market.setEnableRequestNewJob(false);
        _give(customer, PER_MINUTE + constants.minimumAmount());
        JobRequest[] memory requests = new JobRequest[](1);
        requests[0] = JobRequest(_definition(), PER_MINUTE + constants.minimumAmount(), "", false, ANY, 0);
        requests[0].key = bytes32(uint256(key % 8));
        bytes32 known = requests[0].key == 0 ? bytes32(0) : jobOfKey[customer][requests[0].key];
        vm.prank(customer);
        (bool done,) = address(market)
            .call(abi.encodeCall(market.requestNewJob, (_definition(), requests[0].lockedCredits, "", false)));
        if (done) breach[2] = "bought of a closed market";
        vm.prank(customer);
        (done,) = address(market).call(abi.encodeCall(market.requestNewJobs, (requests)));
        if (done != (known != 0)) breach[2] = "bought of a closed market, or a key forgotten";
        market.setEnableRequestNewJob(true);
        _observe();
    }

    /// @dev Most jobs get somewhere: the latest one is assigned, claimed and started, or only some of it.
    function _advance(uint256 steps) private {
        _observe();
        if (hot.length == 0) return;
        bytes32 id = hot[hot.length - 1];
        address provider = staff[(steps >> 8) % 3];
        for (uint256 i = 0; i < steps % 8; i++) {
            JobStatus status = ghosts[id].status;
            if (status == JobStatus.PENDING) {
                if (!_canAssign(id, provider)) return;
                _schedule(id, provider);
            } else if (status == JobStatus.META_SCHEDULED) {
                vm.prank(jobs.providerOf(id));
                market.claimNextJobs(4);
            } else if (status == JobStatus.SCHEDULED) {
                _set(id, JobStatus.RUNNING, 0);
            }
            _observe();
        }
    }

    function _canAssign(bytes32 id, address provider) private view returns (bool) {
        uint256 price = tools.convertDurationToCredit(_definition(), providers.getProviderPrices(provider), 1);
        return providers.isValidForScheduling(provider) && price <= jobs.get(id).cost.maxCost;
    }

    function _bought(address customer, bytes32 id, uint256 locked, bool authority, uint256 cap) private {
        ghosts[id] = Ghost(JobStatus.PENDING, customer, 0, 0, 0, 0, authority, cap, 0);
        hot.push(id);
        owned[customer] -= locked;
    }

    /// @dev A number up to `most`, mostly a large one: forge likes small ones, with which little happens.
    function _upTo(uint256 most, uint256 seed) private pure returns (uint256) {
        return most - within(seed, 0, most);
    }

    function _give(address who, uint256 amount) internal {
        minted += amount;
        owned[who] += amount;
        _fund(who, amount);
    }

    // --------------------------------------------------------------------------------------------------- assignments

    function assign(uint256 seed, uint256 to) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.PENDING);
        if (!found) return;
        address provider = staff[to % 3];
        vm.prank(ATTACKER);
        (bool stolen,) = address(market).call(abi.encodeCall(market.metaSchedule, (id, provider)));
        if (stolen) breach[4] = "anybody assigns jobs";
        bool possible = _canAssign(id, provider);
        vm.prank(SCHEDULER);
        (bool done,) = address(market).call(abi.encodeCall(market.metaSchedule, (id, provider)));
        if (done && !possible) breach[6] = "assigned what buys no minute, or to whom may have nothing";
        if (!done && possible) breach[3] = "not assigned though it could be";
        _observe();
    }

    /// @notice Each hot job twice in a list.
    function assignMany(uint256 to) external {
        Assignment[] memory list = new Assignment[](2 * hot.length);
        uint256 most = to % 2 == 0 ? ANY : PER_MINUTE;
        for (uint256 i = 0; i < list.length; i++) {
            list[i] = Assignment(hot[i / 2], staff[(to % 3 + i) % 3], most);
        }
        vm.prank(SCHEDULER);
        market.metaScheduleMany(list);
        for (uint256 i = 0; i < hot.length; i++) {
            bool assigned = ghosts[hot[i]].status == JobStatus.PENDING && jobs.providerOf(hot[i]) != address(0);
            if (assigned && jobs.costPerMinute(hot[i]) > most) breach[2] = "assigned at more than expected";
        }
        _observe();
    }

    function claim(uint256 who, uint256 count) external {
        address provider = staff[who % 3];
        if (!queues.hasNextClaimableJob(provider)) return;
        vm.prank(provider);
        market.claimNextJobs(within(count, 1, 4));
        _observe();
    }

    function notice(uint256 who) external {
        address provider = staff[who % 3];
        if (queues.hasCancellingJob(provider)) {
            vm.prank(provider);
            market.claimNextCancellingJob();
        }
        if (queues.hasTopUpJob(provider)) {
            vm.prank(provider);
            market.claimNextTopUpJobs(2);
        }
        _observe();
    }

    function refuse(uint256 seed, bool claimed) external {
        (bytes32 id, bool found) = _pick(seed, claimed ? JobStatus.SCHEDULED : JobStatus.META_SCHEDULED);
        if (!found) return;
        address provider = jobs.providerOf(id);
        vm.prank(provider);
        market.refuseJob(id);
        _observe();
    }

    function timeout(uint256 seed, uint256 wait) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.META_SCHEDULED);
        if (!found) return;
        _pass(within(wait, 0, 2 * constants.claimJobTimeout()));
        bool late = _now() >= ghosts[id].assigned + constants.claimJobTimeout();
        (bool done,) = address(market).call(abi.encodeCall(market.timeoutJob, (id)));
        if (done != late) breach[3] = "taken from a provider that had time, or not from one that had none";
        _observe();
    }

    // ---------------------------------------------------------------------------------------------------------- runs

    function start(uint256 seed) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.SCHEDULED);
        if (!found) return;
        _set(id, JobStatus.RUNNING, 0);
        _observe();
    }

    function end(uint256 seed, uint8 status, uint16 time, bool minutes_) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.RUNNING);
        if (!found) return;
        JobStatus to = JobStatus(within(status, 4, 8));
        (reported[id], inMinutes[id]) = (minutes_ ? uint256(time) * 60 : time, minutes_);
        if (minutes_) {
            _set(id, to, time);
        } else {
            address provider = jobs.providerOf(id);
            vm.prank(provider);
            market.providerSetJobStatusSecond(id, uint8(to), time, "why", 256);
        }
        _observe();
    }

    /// @notice A provider reports on all jobs at once, also on others'; mostly that they run.
    function report(uint256 who, uint8 status, uint16 time) external {
        JobReport[] memory reports = new JobReport[](hot.length);
        for (uint256 i = 0; i < reports.length; i++) {
            uint8 next = status % 4 == i % 4 ? uint8(within(status + i, 4, 8)) : uint8(JobStatus.RUNNING);
            reports[i] = JobReport(hot[i], next, time, "", 0);
            (reported[hot[i]], inMinutes[hot[i]]) = (time, false);
        }
        vm.prank(staff[who % 3]);
        market.providerSetJobStatuses(reports);
        _observe();
    }

    /// @notice A provider reports any status of a job that has not run.
    function misreport(uint256 seed, bool claimed, uint8 status) external {
        (bytes32 id, bool found) = _pick(seed, claimed ? JobStatus.SCHEDULED : JobStatus.META_SCHEDULED);
        if (!found) return;
        JobStatus to = JobStatus(within(status, 0, 8));
        bool expected = to >= JobStatus.RUNNING && _mayFollow(ghosts[id].status, to);
        address provider = jobs.providerOf(id);
        vm.prank(provider);
        (bool done,) = address(market).call(abi.encodeCall(market.providerSetJobStatus, (id, uint8(to), 1, "", 0)));
        if (done != expected) breach[3] = "a status that a provider may not report, or may";
        _observe();
    }

    // ----------------------------------------------------------------------------------------------- cancels, panics

    function cancel(uint256 seed) external {
        (bytes32 id, bool found) = _pickHot(seed);
        if (!found) return;
        vm.prank(ghosts[id].customer);
        market.cancelJob(id);
        _observe();
    }

    /// @notice A panic by one of those who may always, by the customer (free before a claim, billed by the chain's
    /// clock while the job runs), or by anybody, which is for forgotten jobs alone.
    function panic(uint256 seed, uint256 by) external {
        (bytes32 id, bool found) = _pickHot(seed);
        if (!found) return;
        // Mostly the attacker: what a panic ends is lost to all other steps.
        address caller = ATTACKER;
        if (by % 8 < 3) caller = [SCHEDULER, jobs.providerOf(id), ghosts[id].customer][by % 8];
        if (caller == address(0)) caller = SCHEDULER;
        _panic(id, caller);
    }

    /// @notice A provider claims, perhaps late, what its customer wants cancelled, perhaps after it took notice of
    /// that: it is told then, and has time to answer from then on.
    function claimCancelled(uint256 seed, uint256 wait) external {
        (bytes32 id, bool found) = _pick(seed, JobStatus.META_SCHEDULED);
        if (!found) return;
        if (!jobs.get(id).hasCancelRequest) {
            vm.prank(ghosts[id].customer);
            market.cancelJob(id);
        }
        _pass(within(wait, 1, 2 * constants.claimJobTimeout()));
        address provider = jobs.providerOf(id);
        if (seed % 2 == 0 && queues.hasCancellingJob(provider)) {
            vm.prank(provider);
            market.claimNextCancellingJobs(hot.length);
        }
        vm.prank(provider);
        market.claimNextJobs(hot.length);
        _observe();
        if (ghosts[id].status != JobStatus.SCHEDULED) return;
        if (!_isIn(id, provider, QueueKind.CANCELLING)) breach[3] = "who claimed it is not told of the cancel request";
        _panic(id, ghosts[id].customer);
    }

    function _panic(bytes32 id, address caller) private {
        Ghost storage ghost = ghosts[id];
        JobStatus status = ghost.status;
        bool forgotten = _isForgotten(id);
        bool expected = true;
        if (caller == ATTACKER) expected = forgotten;
        if (caller == ghost.customer) expected = status != JobStatus.SCHEDULED || forgotten;
        vm.prank(caller);
        (bool done,) = address(market).call(abi.encodeCall(market.panicJob, (id, "lost")));
        if (done != expected) breach[6] = "who may panic";
        if (caller == ghost.customer && status == JobStatus.RUNNING && !forgotten) {
            uint256 time = _max(_now() - ghost.start, 60 * constants.cancellationFeeMinute());
            panicBill = _min(time * ghost.price / 60, jobs.get(id).cost.maxCost);
        }
        _observe();
        panicBill = 0;
    }

    /// @dev Whether the job's provider has been silent for so long that anybody may end the job.
    function _isForgotten(bytes32 id) private view returns (bool) {
        Job memory job = jobs.get(id);
        if (job.status == JobStatus.RUNNING && ghosts[id].price != 0) {
            uint256 paid = job.cost.maxCost * 60 / ghosts[id].price;
            return _now() > job.time.start + paid + 60 * constants.billDurationDeltaMinute();
        }
        return job.status == JobStatus.SCHEDULED && job.hasCancelRequest
            && _now() > _max(job.time.cancelRequestTimestamp, ghosts[id].claimed) + constants.claimJobTimeout();
    }

    // -------------------------------------------------------------------------------------------------------- top-ups

    function topUp(uint256 seed, uint256 who, uint256 amount) external {
        (bytes32 id, bool found) = _pickTopable(seed);
        if (!found) return;
        address payer = customers[who % 3];
        amount = _upTo(3 * ghosts[id].price + 1, amount);
        _give(payer, amount);
        uint256 size = queues.getTopUpJobQueueSize(jobs.providerOf(id));
        bool waiting = jobs.get(id).cost.pendingTopUp > 0;
        vm.prank(payer);
        (bool done,) = address(market).call(abi.encodeCall(market.topUpJob, (id, amount)));
        bool topable = ghosts[id].status == JobStatus.SCHEDULED || ghosts[id].status == JobStatus.RUNNING;
        if (done != (topable && amount > 0 && amount >= ghosts[id].price)) {
            breach[6] = "a top-up of less than a minute";
        }
        if (done) {
            owned[payer] -= amount;
            size = queues.getTopUpJobQueueSize(jobs.providerOf(id)) - size;
            if (size != (waiting ? 0 : 1)) breach[6] = "a top-up that is not one entry";
        }
        _observe();
    }

    function topUpDelegate(uint256 seed, uint256 allowance) external {
        (bytes32 id, bool found) = _pickTopable(seed);
        if (!found) return;
        Ghost storage ghost = ghosts[id];
        JobCost memory cost = jobs.get(id).cost;
        uint256 wanted = _delegated(ghost, cost.maxCost);
        // Where a refusal is due, the allowance is not what causes it.
        allowance = wanted == 0 ? 10 * _slice(ghost.price) : _upTo(2 * wanted, allowance);
        _give(ghost.customer, allowance);
        vm.prank(SCHEDULER);
        (bool done,) = address(market).call(abi.encodeCall(market.topUpJobDelegate, (id)));
        if (done != (wanted > 0 && allowance >= wanted)) breach[7] = "whether the delegate may add";
        if (done) {
            uint256 added = jobs.get(id).cost.maxCost - cost.maxCost;
            if (added != wanted) breach[7] = "what the delegate may add";
            owned[ghost.customer] -= added;
            if (ghost.capLeft != ANY) ghost.capLeft -= added;
        }
        _observe();
    }

    /// @dev What the delegate may add to a job now: a slice or what the cap has left, at least a minute's worth, if the
    /// customer agreed and less than a slice remains.
    function _delegated(Ghost storage ghost, uint256 locked) private view returns (uint256 amount) {
        bool topable = ghost.status == JobStatus.SCHEDULED || ghost.status == JobStatus.RUNNING;
        if (!ghost.authority || !topable || ghost.price == 0) return 0;
        uint256 used = ghost.start == 0 ? 0 : (_now() - ghost.start + 59) / 60;
        if (locked / ghost.price >= used + constants.topUpSliceDurationMin()) return 0;
        amount = _min(_slice(ghost.price), ghost.capLeft);
        return amount < ghost.price ? 0 : amount;
    }

    function _slice(uint256 price) private view returns (uint256) {
        return constants.topUpSliceDurationMin() * price;
    }

    function setDelegate(uint256 seed, bool authority, uint256 cap, bool capped) external {
        (bytes32 id, bool found) = _pickHot(seed);
        if (!found) return;
        vm.prank(ghosts[id].customer);
        market.setDelegateSpendingAuthority(id, authority);
        ghosts[id].authority = authority;
        if (jobs.delegateAllowance(id) != ghosts[id].capLeft) breach[7] = "the authority changed the cap";
        ghosts[id].capLeft = capped ? _upTo(2 * _slice(PER_MINUTE), cap) : ANY;
        vm.prank(ghosts[id].customer);
        market.setDelegateSpendingCap(id, ghosts[id].capLeft);
        _observe();
    }

    // ------------------------------------------------------------------------------------------ operators, admin, time

    function ban(uint256 who, bool banned) external {
        address provider = staff[who % 3];
        if (providers.isBanned(provider)) providers.unban(provider);
        else if (banned && _isKnown(provider)) providers.ban(provider);
        _observe();
    }

    function rejoin(uint256 who, bool leaves) external {
        address provider = staff[who % 3];
        if (leaves && _isKnown(provider)) providers.remove(provider);
        _register(provider, providers.getProviderPrices(provider));
        if (providers.isWaitingForApproval(provider) && !providers.isBanned(provider)) providers.approve(provider);
        _observe();
    }

    function _isKnown(address provider) private view returns (bool) {
        return providers.getProvider(provider).addr != address(0) || providers.isWaitingForApproval(provider);
    }

    function reprice(uint256 who, uint64 price) external {
        price = price % 32 == 17 ? 0 : uint64(_upTo(PER_MINUTE / 6, price));
        _register(staff[who % 3], ProviderPrices(price, price / 3, price / 7));
        _observe();
    }

    function configure(uint8 cut, uint8 delta, uint8 fee, uint16 timeout_, uint16 slice, uint16 least) external {
        constants.setDeepsquareCut(cut % 101);
        constants.setBillDurationDeltaMinute(1 + delta % 30);
        constants.setCancellationFeeMinute(fee % 30);
        constants.setClaimJobTimeout(1 + uint64(timeout_) % 1 hours);
        constants.setTopUpSliceDurationMin(1 + uint64(_upTo(200, slice)));
        constants.setMinimumAmount(least);
    }

    function withdraw(uint256 amount) external {
        amount = within(amount, 0, market.withdrawable());
        market.withdrawAdmin(amount);
        credit.transfer(ADMIN_PURSE, amount);
        owned[ADMIN_PURSE] += amount;
        shares -= amount;
    }

    function pass(uint24 time) external {
        _pass(time % (time % 16 == 0 ? 3 days : 20 minutes));
    }

    // -------------------------------------------------------------------------------------------------------- attacks

    /// @notice Somebody calls what is not its to call: the attacker anything, customers and providers what is others'.
    function attack(uint256 seed, uint256 who, uint256 what, uint256 argument) external {
        (bytes32 id, bool found) = _pickHot(seed);
        if (!found) return;
        address provider = jobs.providerOf(id);
        address caller = [ATTACKER, customers[0], customers[1], staff[0], staff[1]][who % 5];
        if (caller == ghosts[id].customer || caller == provider) caller = ATTACKER;
        (address target, bytes memory data) = _forbidden(id, provider, what % 39, argument);
        bytes32 before = _digest();
        vm.prank(caller);
        (bool done,) = target.call(data);
        if (done) breach[4] = "a call that is another's";
        if (_digest() != before) breach[4] = "a call that is another's changed something";
        _innocuous(caller, id, before);
    }

    /// @dev What anybody may call, but not to any effect on what is another's.
    function _innocuous(address caller, bytes32 id, bytes32 before) private {
        JobReport[] memory reports = new JobReport[](1);
        for (uint8 status = 0; status < 9; status++) {
            reports[0] = JobReport(id, status, 60, "x", 1);
            vm.prank(caller);
            market.providerSetJobStatuses(reports);
        }
        if (_digest() != before) breach[4] = "a report on another's job";
    }

    function _forbidden(bytes32 id, address provider, uint256 what, uint256 argument)
        private
        view
        returns (address, bytes memory)
    {
        if (what < 14) return (address(market), _forbiddenOfMarket(id, what, argument));
        if (what < 28) return (address(jobs), _forbiddenOfJobs(id, what - 14, argument));
        if (what < 33) {
            bytes[5] memory calls = [
                abi.encodeCall(queues.push, (staff[argument % 3], QueueKind(argument % 3), id, uint16(argument))),
                abi.encodeCall(queues.pop, (staff[argument % 3], QueueKind(argument % 3), 1)),
                abi.encodeCall(queues.drop, (staff[argument % 3], QueueKind(argument % 3))),
                abi.encodeCall(queues.pushTopUpJob, (provider, id)),
                abi.encodeCall(queues.popNextClaimableJob, (staff[argument % 3]))
            ];
            return (address(queues), calls[what - 28]);
        }
        if (what < 36) {
            bytes[3] memory calls = [
                abi.encodeCall(providers.ban, (staff[argument % 3])),
                abi.encodeCall(providers.remove, (staff[argument % 3])),
                abi.encodeCall(providers.countClaims, (staff[argument % 3], 1))
            ];
            return (address(providers), calls[what - 33]);
        }
        if (what == 36) return (address(constants), abi.encodeCall(constants.setDeepsquareCut, (argument % 101)));
        if (what == 37) return (address(credit), abi.encodeCall(credit.mint, (ATTACKER, argument)));
        return
            (
                address(credit),
                abi.encodeCall(credit.transferFrom, (address(market), ATTACKER, within(argument, 1, 1e18)))
            );
    }

    function _forbiddenOfMarket(bytes32 id, uint256 what, uint256 argument) private view returns (bytes memory) {
        bytes[14] memory calls = [
            abi.encodeCall(market.cancelJob, (id)),
            abi.encodeCall(market.setDelegateSpendingAuthority, (id, true)),
            abi.encodeCall(market.setDelegateSpendingCap, (id, argument)),
            abi.encodeCall(market.metaSchedule, (id, staff[argument % 3])),
            abi.encodeCall(market.metaScheduleMany, (new Assignment[](0))),
            abi.encodeCall(market.topUpJobDelegate, (id)),
            abi.encodeCall(market.refuseJob, (id)),
            abi.encodeCall(market.providerSetJobStatus, (id, uint8(argument % 9), 1, "", 0)),
            abi.encodeCall(market.providerSetJobStatusSecond, (id, uint8(argument % 9), 1, "", 0)),
            abi.encodeCall(market.setEnableRequestNewJob, (false)),
            abi.encodeCall(market.withdrawAdmin, (0)),
            abi.encodeCall(market.grantRole, (market.METASCHEDULER_ROLE(), ATTACKER)),
            abi.encodeCall(market.revokeRole, (market.METASCHEDULER_ROLE(), SCHEDULER)),
            abi.encodeCall(market.grantRole, (bytes32(0), ATTACKER))
        ];
        return calls[what];
    }

    function _forbiddenOfJobs(bytes32 id, uint256 what, uint256 argument) private view returns (bytes memory) {
        bytes[14] memory calls = [
            abi.encodeCall(jobs.open, (ATTACKER, argument % 1e20, true, 0, "")),
            abi.encodeCall(jobs.assign, (id, ATTACKER, ProviderPrices(0, 0, 0), argument)),
            abi.encodeCall(jobs.release, (id)),
            abi.encodeCall(jobs.claim, (id)),
            abi.encodeCall(jobs.start, (id)),
            abi.encodeCall(jobs.end, (id, JobStatus(4 + argument % 5), argument % 1e6, 0)),
            abi.encodeCall(jobs.addCredits, (id, argument % 1e20, true)),
            abi.encodeCall(jobs.noticeTopUp, (id)),
            abi.encodeCall(jobs.requestCancel, (id)),
            abi.encodeCall(jobs.noticeCancel, (id)),
            abi.encodeCall(jobs.setDelegate, (id, true, argument)),
            abi.encodeCall(jobs.setJobStatus, (id, JobStatus(argument % 9))),
            abi.encodeCall(jobs.setCost, (id, JobCost(argument % 1e20, 0, 0, true))),
            abi.encodeCall(jobs.setCustomerAddr, (id, ATTACKER))
        ];
        return calls[what];
    }

    /// @dev All that an attack might change: hot jobs, everybody's credits, the queues' sizes.
    function _digest() private view returns (bytes32) {
        bytes memory state = abi.encode(
            jobs.getMany(hot), jobs.jobIdCounter(), market.withdrawable(), credit.balanceOf(address(market))
        );
        for (uint256 i = 0; i < 3; i++) {
            state = abi.encode(
                state,
                credit.balanceOf(customers[i]),
                credit.balanceOf(staff[i]),
                queues.getClaimableJobQueueSize(staff[i]),
                queues.getCancellingJobQueueSize(staff[i]),
                queues.getTopUpJobQueueSize(staff[i]),
                providers.getProvider(staff[i])
            );
        }
        return keccak256(abi.encode(state, credit.balanceOf(ATTACKER), constants.all()));
    }

    // ---------------------------------------------------------------------------------------------------- observation

    /// @dev After each step: what changed of the hot jobs, against the rules and the model.
    function _observe() internal {
        for (uint256 i = hot.length; i > 0; i--) {
            bytes32 id = hot[i - 1];
            Job memory job = jobs.get(id);
            Ghost storage ghost = ghosts[id];
            if (job.status != ghost.status) _changed(id, job, ghost);
            if (jobs.costPerMinute(id) != ghost.price) breach[4] = "the price of a job changed";
            if (jobs.delegateAllowance(id) != ghost.capLeft) breach[7] = "the cap changed";
            if (job.cost.delegateSpendingAuthority != ghost.authority) breach[7] = "the authority changed";
            ghost.status = job.status;
            if (job.status <= JobStatus.RUNNING) continue;
            ghost.digest = keccak256(abi.encode(job));
            cold.push(id);
            hot[i - 1] = hot[hot.length - 1];
            hot.pop();
        }
    }

    function _changed(bytes32 id, Job memory job, Ghost storage ghost) private {
        if (!_mayFollow(ghost.status, job.status)) breach[3] = "a change of status that is not allowed";
        if (job.status == JobStatus.META_SCHEDULED) {
            ghost.assigned = _now();
            ProviderPrices memory prices = providers.getProviderPrices(job.providerAddr);
            ghost.price = tools.convertDurationToCredit(job.definition, prices, 1);
            if (ghost.price > job.cost.maxCost) breach[6] = "assigned, though it buys no minute";
        }
        if (job.status == JobStatus.META_SCHEDULED || job.status == JobStatus.SCHEDULED) {
            if (!providers.isValidForScheduling(job.providerAddr)) breach[4] = "a new job for whom may have nothing";
        }
        if (job.status == JobStatus.PENDING) {
            if (job.hasCancelRequest) breach[3] = "a job that its customer wants cancelled is on sale again";
            ghost.price = 0;
        }
        if (job.status == JobStatus.SCHEDULED) {
            ghost.claimed = _now();
            bool told = jobs.getState(id).life.has(LifeWord.IN_CANCELLING_QUEUE);
            if (job.hasCancelRequest != told) breach[3] = "a claimed job's provider is not told of the cancel request";
        }
        if (job.status == JobStatus.RUNNING) ghost.start = _now();
        if (job.status > JobStatus.RUNNING) _ended(id, job, ghost);
    }

    function _ended(bytes32 id, Job memory job, Ghost storage ghost) private {
        uint256 cost = job.cost.finalCost;
        if (cost != _bill(id, job, ghost)) breach[2] = "the bill";
        uint256 share = cost * constants.deepsquareCut() / 100;
        owned[job.customerAddr] += job.cost.maxCost - cost;
        if (job.providerAddr != address(0)) owned[job.providerAddr] += cost - share;
        shares += share;
        if (job.cost.pendingTopUp != 0) breach[3] = "a top-up is pending for what has ended";
    }

    /// @dev The bill by the rules of the README, to the wei.
    function _bill(bytes32 id, Job memory job, Ghost storage ghost) private view returns (uint256) {
        if (ghost.start == 0) return 0;
        if (job.status == JobStatus.PANICKED) return panicBill;
        uint256 time = _now() - ghost.start;
        if (inMinutes[id]) time = (time + 59) / 60 * 60;
        time = _min(reported[id], time + 60 * constants.billDurationDeltaMinute());
        if (job.status == JobStatus.CANCELLED && job.hasCancelRequest) {
            time = _max(time, 60 * constants.cancellationFeeMinute());
        }
        return _min(time * ghost.price / 60, job.cost.maxCost);
    }

    /// @dev The table of the protocol once more.
    function _mayFollow(JobStatus from, JobStatus to) private pure returns (bool) {
        uint16[4] memory successors = [uint16(0x112), 0x155, 0x159, 0x1f0];
        return successors[uint8(from)] & uint16(1) << uint8(to) != 0;
    }

    function _pick(uint256 seed, JobStatus status) internal view returns (bytes32, bool) {
        for (uint256 i = 0; i < hot.length; i++) {
            bytes32 id = hot[(seed % hot.length + i) % hot.length];
            if (ghosts[id].status == status) return (id, true);
        }
        return (0, false);
    }

    /// @dev Mostly one that can be topped up.
    function _pickTopable(uint256 seed) private view returns (bytes32 id, bool found) {
        (id, found) = _pick(seed, seed % 2 == 0 ? JobStatus.RUNNING : JobStatus.SCHEDULED);
        if (!found || seed % 8 == 0) return _pickHot(seed);
    }

    function _pickHot(uint256 seed) internal view returns (bytes32, bool) {
        return hot.length == 0 ? (bytes32(0), false) : (hot[seed % hot.length], true);
    }

    function _max(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    // --------------------------------------------------------------------------------------------------------- checks

    function checkConservation() external view {
        uint256 locked;
        for (uint256 i = 0; i < hot.length; i++) {
            locked += jobs.get(hot[i]).cost.maxCost;
        }
        same(credit.balanceOf(address(market)), locked + market.withdrawable(), "the market's credits");
        uint256 all = credit.balanceOf(address(market)) + credit.balanceOf(ADMIN_PURSE) + credit.balanceOf(ATTACKER);
        for (uint256 i = 0; i < 3; i++) {
            all += credit.balanceOf(customers[i]) + credit.balanceOf(staff[i]);
        }
        same(all, minted, "what all own");
        same(credit.totalSupply(), minted, "what was minted");
    }

    function checkBills() external view {
        for (uint256 i = 0; i < 3; i++) {
            same(credit.balanceOf(customers[i]), owned[customers[i]], "a customer's credits");
            same(credit.balanceOf(staff[i]), owned[staff[i]], "a provider's credits");
        }
        same(credit.balanceOf(ADMIN_PURSE), owned[ADMIN_PURSE], "the admin's credits");
        same(market.withdrawable(), shares, "the market's share");
    }

    function checkColdIsFinal() external view {
        for (uint256 i = 0; i < cold.length; i++) {
            same(keccak256(abi.encode(jobs.get(cold[i]))), ghosts[cold[i]].digest, "a job that has ended");
        }
    }

    function checkQueues() external view {
        for (uint256 p = 0; p < 3; p++) {
            for (uint256 kind = 0; kind < 3; kind++) {
                _checkQueue(staff[p], QueueKind(kind));
            }
        }
    }

    function _checkQueue(address provider, QueueKind kind) private view {
        (bytes32[] memory ids, uint256 next) = queues.getQueue(provider, kind, 0, type(uint64).max);
        same(next, 0, "one page");
        uint256 expected;
        for (uint256 i = 0; i < hot.length; i++) {
            bool isIn = _isIn(hot[i], provider, kind);
            if (isIn) expected++;
            uint256 times;
            for (uint256 j = 0; j < ids.length; j++) {
                if (ids[j] == hot[i]) times++;
            }
            same(times, isIn ? 1 : 0, "how often a job is in a queue");
        }
        same(ids.length, expected, "length of a queue");
        (bool claimable, bool cancelling, bool topUps) = queues.hasJob(provider);
        bool[3] memory has = [claimable, cancelling, topUps];
        yes(has[uint8(kind)] == (expected > 0), "what is announced can be taken");
    }

    function _isIn(bytes32 id, address provider, QueueKind kind) private view returns (bool) {
        Job memory job = jobs.get(id);
        if (job.providerAddr != provider) return false;
        if (kind == QueueKind.CLAIMABLE) return job.status == JobStatus.META_SCHEDULED;
        if (kind == QueueKind.TOP_UP) return job.cost.pendingTopUp > 0;
        return jobs.getState(id).life.has(LifeWord.IN_CANCELLING_QUEUE);
    }

    /// @notice Takes all that waits: each call gets on, whatever the queues have been through.
    function drain() external {
        for (uint256 p = 0; p < 3; p++) {
            for (uint256 calls = 0; queues.hasNextClaimableJob(staff[p]); calls++) {
                yes(calls < 2000, "claims that get nowhere");
                vm.prank(staff[p]);
                market.claimNextJob();
            }
            for (uint256 calls = 0; queues.hasCancellingJob(staff[p]); calls++) {
                yes(calls < 2000, "notices that get nowhere");
                vm.prank(staff[p]);
                market.claimNextCancellingJob();
            }
            for (uint256 calls = 0; queues.hasTopUpJob(staff[p]); calls++) {
                yes(calls < 2000, "notices that get nowhere");
                vm.prank(staff[p]);
                market.claimNextTopUpJob();
            }
        }
        _observe();
    }
}
