// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {MetaScheduler} from "../src/MetaScheduler.sol";
import {MarketTest} from "./utils/Market.sol";
import {JobRepository} from "../src/JobRepository.sol";
import {ProviderJobQueues} from "../src/ProviderJobQueues.sol";
import "../src/Types.sol";

/// @notice A credit that lets whoever is in a transfer call back, before and after the credits move, and refuses some.
contract HostileCredit is ERC20("Hostile", "H") {
    mapping(address => bytes[]) private _calls;
    mapping(address => bool) public isBlocked;
    bool private _inside;
    address private _market;
    /// @notice How many of the calls back went through.
    uint256 public done;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setMarket(address market) external {
        _market = market;
    }

    /// @notice Whenever `who` sends or gets credits, it calls the market with each of these.
    function onTransfer(address who, bytes[] memory calls) external {
        _calls[who] = calls;
    }

    function setBlocked(address who, bool blocked) external {
        isBlocked[who] = blocked;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!isBlocked[to], "blocked");
        _callBack(from);
        _callBack(to);
        super._update(from, to, value);
        _callBack(from);
        _callBack(to);
    }

    function _callBack(address who) private {
        if (_inside || _calls[who].length == 0) return;
        _inside = true;
        for (uint256 i = 0; i < _calls[who].length; i++) {
            (bool went,) = Actor(who).act(_market, _calls[who][i]);
            if (went) done++;
        }
        _inside = false;
    }
}

/// @notice A customer or provider that is a contract.
contract Actor {
    function act(address target, bytes calldata data) external returns (bool, bytes memory) {
        return target.call(data);
    }
}

/// @notice Nobody gets more out of the market by calling it from within a transfer.
contract ReentrancyTest is MarketTest {
    uint256 private constant OTHERS = 5 * LOCKED;

    HostileCredit private hostile;
    Actor private customer;
    Actor private provider;
    address private customerAddr;
    address private providerAddr;

    function setUp() public override {
        super.setUp();
        hostile = new HostileCredit();
        jobs = new JobRepository();
        queues = new ProviderJobQueues(jobs);
        market = new MetaScheduler(IERC20(address(hostile)), constants, providers, queues, jobs);
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(market));
        providers.grantRole(providers.METASCHEDULER_CONTRACT_ROLE(), address(market));
        queues.transferOwnership(address(market));
        market.grantRole(market.METASCHEDULER_ROLE(), SCHEDULER);
        hostile.setMarket(address(market));

        customer = new Actor();
        provider = new Actor();
        (customerAddr, providerAddr) = (address(customer), address(provider));
        _join(providerAddr);
        // Somebody else's credits, which are there to be stolen.
        _own(CUSTOMER, OTHERS);
        vm.prank(CUSTOMER);
        market.requestNewJob(_definition(), OTHERS, "", false);
        _own(customerAddr, 10 * LOCKED);
    }

    function _own(address who, uint256 amount) private {
        hostile.mint(who, amount);
        vm.prank(who);
        hostile.approve(address(market), type(uint256).max);
    }

    function _buy() private returns (bytes32) {
        vm.prank(customerAddr);
        return market.requestNewJob(_definition(), LOCKED, "", false);
    }

    function _report(bytes32 id, JobStatus status) private {
        vm.prank(providerAddr);
        market.providerSetJobStatus(id, uint8(status), 1, "", 0);
    }

    function _run() private returns (bytes32 id) {
        id = _buy();
        _schedule(id, providerAddr);
        _claim(providerAddr);
        _report(id, JobStatus.RUNNING);
    }

    /// @dev Whatever a party of a job could try again.
    function _everything(bytes32 id) private pure returns (bytes[] memory calls) {
        calls = new bytes[](11);
        JobReport[] memory reports = new JobReport[](2);
        reports[0] = JobReport(id, uint8(JobStatus.FINISHED), 600, "", 0);
        reports[1] = JobReport(id, uint8(JobStatus.FAILED), 600, "", 0);
        JobRequest[] memory requests = new JobRequest[](1);
        requests[0] = JobRequest(_definition(), LOCKED, "", false, type(uint256).max, "again");
        calls[0] = abi.encodeCall(MetaScheduler.cancelJob, (id));
        calls[1] = abi.encodeCall(MetaScheduler.panicJob, (id, ""));
        calls[2] = abi.encodeCall(MetaScheduler.providerSetJobStatus, (id, uint8(JobStatus.FINISHED), 10, "", 0));
        calls[3] = abi.encodeCall(MetaScheduler.providerSetJobStatuses, (reports));
        calls[4] = abi.encodeCall(MetaScheduler.topUpJob, (id, LOCKED));
        calls[5] = abi.encodeCall(MetaScheduler.requestNewJobs, (requests));
        calls[6] = abi.encodeCall(MetaScheduler.refuseJob, (id));
        calls[7] = abi.encodeCall(MetaScheduler.claimNextJob, ());
        calls[8] = abi.encodeCall(MetaScheduler.timeoutJob, (id));
        calls[9] = abi.encodeCall(MetaScheduler.withdrawAdmin, (1));
        calls[10] = abi.encodeCall(MetaScheduler.cancelJob, (bytes32(uint256(id) + 1)));
    }

    /// @dev What hot jobs have locked is there, and everybody's credits are those that were minted.
    function _checkBooks() private view {
        uint256 locked;
        for (uint256 i = 1; i <= jobs.jobIdCounter(); i++) {
            Job memory job = jobs.get(bytes32(i));
            if (job.status <= JobStatus.RUNNING) locked += job.cost.maxCost;
            yes(job.cost.finalCost <= job.cost.maxCost, "billed at most what was locked");
        }
        same(hostile.balanceOf(address(market)), locked + market.withdrawable(), "the market's credits");
        same(
            hostile.balanceOf(customerAddr) + hostile.balanceOf(providerAddr) + hostile.balanceOf(address(market)),
            10 * LOCKED + OTHERS,
            "nothing appeared"
        );
        same(jobs.get(bytes32(uint256(1))).cost.maxCost, OTHERS, "the other's job");
    }

    /// @notice From within the refund and the payment of a job that ends.
    function test_WhileAJobEnds() public {
        for (uint8 status = 4; status < 9; status++) {
            bytes32 id = _run();
            _pass(60);
            hostile.onTransfer(customerAddr, _everything(id));
            hostile.onTransfer(providerAddr, _everything(id));
            uint256 before = hostile.balanceOf(customerAddr) + LOCKED;
            _report(id, JobStatus(status));
            same(uint256(jobs.get(id).status), status, "ended once, as reported");
            hostile.onTransfer(customerAddr, new bytes[](0));
            hostile.onTransfer(providerAddr, new bytes[](0));
            // One of the calls back buys a job, the first time; it can be cancelled as any.
            yes(hostile.balanceOf(customerAddr) <= before, "no more than it had");
            _checkBooks();
        }
        yes(hostile.done() > 0, "some calls back went through");
    }

    /// @notice From within the refund of a cancelled and of a panicked job.
    function test_WhileAJobIsCancelled() public {
        bytes32 id = _buy();
        hostile.onTransfer(customerAddr, _everything(id));
        vm.prank(customerAddr);
        market.cancelJob(id);
        _checkBooks();
        id = _buy();
        vm.prank(SCHEDULER);
        market.panicJob(id, "");
        _checkBooks();
    }

    /// @notice From within the payment for a job: it can be cancelled before its credits came in, and is paid for all
    /// the same, or nothing happened.
    function test_WhileAJobIsBought() public {
        bytes[] memory calls = new bytes[](3);
        // The job that is being bought, alone and in a list, and one behind it.
        calls[0] = abi.encodeCall(MetaScheduler.cancelJob, (bytes32(uint256(2))));
        calls[1] = abi.encodeCall(MetaScheduler.cancelJob, (bytes32(uint256(3))));
        calls[2] = abi.encodeCall(MetaScheduler.requestNewJob, (_definition(), LOCKED, "", false));
        hostile.onTransfer(customerAddr, calls);
        _buy();
        _checkBooks();
        JobRequest[] memory requests = new JobRequest[](3);
        for (uint256 i = 0; i < 3; i++) {
            requests[i] = JobRequest(_definition(), LOCKED / 10, "", false, type(uint256).max, bytes32(i + 1));
        }
        vm.prank(customerAddr);
        market.requestNewJobs(requests);
        _checkBooks();
    }

    /// @notice A list that is cancelled from within its own payment, by a customer that has less than it costs.
    function test_BuyingWithWhatIsRefunded() public {
        Actor poor = new Actor();
        _own(address(poor), LOCKED);
        JobRequest[] memory requests = new JobRequest[](2);
        for (uint256 i = 0; i < 2; i++) {
            requests[i] = JobRequest(_definition(), LOCKED, "", false, type(uint256).max, 0);
        }
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(MetaScheduler.cancelJob, (bytes32(uint256(2))));
        calls[1] = abi.encodeCall(MetaScheduler.cancelJob, (bytes32(uint256(3))));
        hostile.onTransfer(address(poor), calls);
        vm.prank(address(poor));
        (bool done,) = address(market).call(abi.encodeCall(MetaScheduler.requestNewJobs, (requests)));
        uint256 worth = hostile.balanceOf(address(poor));
        for (uint256 i = 2; done && i <= jobs.jobIdCounter(); i++) {
            Job memory job = jobs.get(bytes32(i));
            if (job.status <= JobStatus.RUNNING) worth += job.cost.maxCost;
        }
        same(worth, LOCKED, "what it had");
        same(hostile.balanceOf(address(market)) + hostile.balanceOf(address(poor)), OTHERS + LOCKED, "nothing lost");
    }

    /// @notice From within a top-up.
    function test_WhileAJobIsToppedUp() public {
        bytes32 id = _run();
        hostile.onTransfer(customerAddr, _everything(id));
        vm.prank(customerAddr);
        market.topUpJob(id, LOCKED);
        _checkBooks();
        // It panicked its own job before it had paid: it is billed, and the payment came in all the same.
        _isIn(id, JobStatus.PANICKED);
        same(jobs.get(id).cost.finalCost, PER_MINUTE, "the fee");
    }

    /// @notice From within the admin's withdrawal.
    function test_WhileTheAdminWithdraws() public {
        bytes32 id = _run();
        _pass(60);
        _report(id, JobStatus.FINISHED);
        market.grantRole(bytes32(0), customerAddr);
        uint256 share = market.withdrawable();
        bytes[] memory calls = new bytes[](1);
        calls[0] = abi.encodeCall(MetaScheduler.withdrawAdmin, (share));
        hostile.onTransfer(customerAddr, calls);
        vm.prank(customerAddr);
        market.withdrawAdmin(share);
        same(market.withdrawable(), 0, "withdrawn once");
        _checkBooks();
    }

    // -------------------------------------------------------------------------------------------------------
    // blocklists

    /// @notice A customer whom the credit refuses to pay holds up its own job alone. In a list its job undoes the
    /// whole: then the provider reports one by one.
    function test_ACustomerWhoCanNotBeRefunded() public {
        bytes32 own = _run();
        bytes32 other = bytes32(uint256(1));
        _schedule(other, providerAddr);
        _claim(providerAddr);
        _report(other, JobStatus.RUNNING);
        hostile.setBlocked(customerAddr, true);

        JobReport[] memory reports = new JobReport[](2);
        reports[0] = JobReport(own, uint8(JobStatus.FINISHED), 0, "", 0);
        reports[1] = JobReport(other, uint8(JobStatus.FINISHED), 0, "", 0);
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "blocked"));
        vm.prank(providerAddr);
        market.providerSetJobStatuses(reports);

        vm.expectRevert(abi.encodeWithSignature("Error(string)", "blocked"));
        _report(own, JobStatus.FINISHED);
        _report(other, JobStatus.FINISHED);
        same(hostile.balanceOf(CUSTOMER), OTHERS - PER_MINUTE, "the other's refund");
        hostile.setBlocked(customerAddr, false);
        _report(own, JobStatus.FINISHED);
    }
}
