// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Constants} from "../../src/Constants.sol";
import {Credit} from "../../src/Credit.sol";
import {JobRepository} from "../../src/JobRepository.sol";
import {MetaScheduler} from "../../src/MetaScheduler.sol";
import {ProviderJobQueues} from "../../src/ProviderJobQueues.sol";
import {ProviderManager} from "../../src/ProviderManager.sol";
import {JobRules} from "../../src/libraries/JobRules.sol";
import "../../src/Types.sol";
import {Check} from "./Vm.sol";

/// @notice A deployed market with a customer, two joined providers and a meta-scheduler.
abstract contract Market is Check {
    address internal constant CUSTOMER = address(0xC0575);
    address internal constant SCHEDULER = address(0x5CED);
    address internal constant PROVIDER = address(0xA1);
    address internal constant OTHER = address(0xB2);
    address internal constant STRANGER = address(0xE5);

    uint256 internal constant LOCKED = 1000e18;
    /// @dev 2 tasks * (3 CPUs * 5 + 3 CPUs * 7 MB * 1) + 4 GPUs * 11, all in milli-credits: see _prices and
    /// _definition.
    uint256 internal constant PER_MINUTE = (2 * (3 * 5 + 3 * 7 * 1) + 4 * 11) * 1e15;

    Credit internal credit;
    Constants internal constants;
    JobRepository internal jobs;
    ProviderManager internal providers;
    ProviderJobQueues internal queues;
    MetaScheduler internal market;

    function _open() internal {
        vm.warp(1_700_000_000);
        vm.roll(100);

        credit = new Credit(0);
        constants = new Constants();
        jobs = new JobRepository();
        providers = new ProviderManager();
        queues = new ProviderJobQueues(jobs);
        market = new MetaScheduler(IERC20(address(credit)), constants, providers, queues, jobs);

        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(market));
        providers.grantRole(providers.METASCHEDULER_CONTRACT_ROLE(), address(market));
        providers.grantRole(providers.METASCHEDULER_ROLE(), address(this));
        queues.transferOwnership(address(market));
        market.grantRole(market.METASCHEDULER_ROLE(), SCHEDULER);

        _join(PROVIDER);
        _join(OTHER);
        _fund(CUSTOMER, 10 * LOCKED);
    }

    // ----------------------------------------------------------------------------------------------------- ingredients

    function _definition() internal pure returns (JobDefinition memory definition) {
        definition.ntasks = 2;
        definition.cpusPerTask = 3;
        definition.memPerCpu = 7;
        definition.gpus = 4;
        definition.batchLocationHash = "aXuB4q";
        definition.storageType = uint8(StorageType.NONE);
    }

    function _prices() internal pure returns (ProviderPrices memory) {
        return ProviderPrices({gpuPricePerMin: 11e15, cpuPricePerMin: 5e15, memPricePerMin: 1e15});
    }

    function _hardware() internal pure returns (ProviderHardware memory hardware) {
        hardware.nodes = 1;
        hardware.gpusPerNode = new uint64[](1);
        hardware.cpusPerNode = new uint64[](1);
        hardware.memPerNode = new uint64[](1);
        hardware.gpusPerNode[0] = 8;
        hardware.cpusPerNode[0] = 64;
        hardware.memPerNode[0] = 500_000;
    }

    function _labels() internal pure returns (Label[] memory labels) {
        labels = new Label[](2);
        labels[0] = Label({key: "os", value: "linux"});
        labels[1] = Label({key: "a.key.that.fills.more.than.one.storage.slot", value: "1"});
    }

    function _fund(address customer, uint256 amount) internal {
        credit.mint(customer, amount);
        vm.prank(customer);
        credit.approve(address(market), amount);
    }

    function _register(address provider, ProviderPrices memory prices) internal {
        vm.prank(provider);
        providers.register(_hardware(), prices, _labels());
    }

    function _join(address provider) internal {
        _register(provider, _prices());
        providers.approve(provider);
    }

    // ----------------------------------------------------------------------------------------------- a job's way to..

    function _request() internal returns (bytes32) {
        return _request(LOCKED);
    }

    function _request(uint256 locked) internal returns (bytes32) {
        vm.prank(CUSTOMER);
        return market.requestNewJob(_definition(), locked, "job", false);
    }

    function _schedule(bytes32 id, address provider) internal {
        vm.prank(SCHEDULER);
        market.metaSchedule(id, provider);
    }

    /// @notice All of them to one provider, at any price.
    function _assignments(bytes32[] memory ids, address provider) internal pure returns (Assignment[] memory list) {
        list = new Assignment[](ids.length);
        for (uint256 i = 0; i < ids.length; i++) {
            list[i] = Assignment(ids[i], provider, type(uint256).max);
        }
    }

    function _claim(address provider) internal {
        vm.prank(provider);
        market.claimNextJob();
    }

    function _set(bytes32 id, JobStatus status, uint64 duration) internal {
        address provider = jobs.providerOf(id);
        vm.prank(provider);
        market.providerSetJobStatus(id, uint8(status), duration, "", 0);
    }

    function _cancel(bytes32 id) internal {
        vm.prank(CUSTOMER);
        market.cancelJob(id);
    }

    /// @notice A new job of that hot status at PROVIDER.
    function _job(JobStatus status) internal returns (bytes32 id) {
        id = _request();
        if (status == JobStatus.PENDING) return id;
        _schedule(id, PROVIDER);
        if (status == JobStatus.META_SCHEDULED) return id;
        _claim(PROVIDER);
        if (status == JobStatus.SCHEDULED) return id;
        _set(id, JobStatus.RUNNING, 0);
    }

    // ----------------------------------------------------------------------------------------------------------- time

    /// @dev The compiler may read `block.timestamp` later than it is written: only the cheat code tells a test's time.
    function _now() internal view returns (uint256) {
        return vm.getBlockTimestamp();
    }

    function _pass(uint256 time) internal {
        vm.warp(_now() + time);
    }

    // --------------------------------------------------------------------------------------------------- expectations

    function _isIn(bytes32 id, JobStatus status) internal view {
        same(uint256(jobs.get(id).status), uint256(status), "status");
    }

    function _queued(address provider, uint256 claimable, uint256 cancelling, uint256 topUp) internal view {
        same(queues.getClaimableJobQueueSize(provider), claimable, "claimable jobs");
        same(queues.getCancellingJobQueueSize(provider), cancelling, "cancelling jobs");
        same(queues.getTopUpJobQueueSize(provider), topUp, "topped-up jobs");
        same(queues.hasNextClaimableJob(provider) ? 1 : 0, claimable == 0 ? 0 : 1, "hasNextClaimableJob");
        same(queues.hasCancellingJob(provider) ? 1 : 0, cancelling == 0 ? 0 : 1, "hasCancellingJob");
        same(queues.hasTopUpJob(provider) ? 1 : 0, topUp == 0 ? 0 : 1, "hasTopUpJob");
    }

    function _expectInvalidTransition(JobStatus from, JobStatus to) internal {
        vm.expectRevert(abi.encodeWithSelector(JobRules.InvalidTransition.selector, from, to));
    }

    function _expectUnauthorized(address account, bytes32 role) internal {
        vm.expectRevert(abi.encodeWithSignature("AccessControlUnauthorizedAccount(address,bytes32)", account, role));
    }
}

/// @notice A market of its own for each test.
abstract contract MarketTest is Market {
    function setUp() public virtual {
        _open();
    }
}
