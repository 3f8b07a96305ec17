// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ProviderList} from "../src/ProviderList.sol";
import {ProviderManager} from "../src/ProviderManager.sol";
import {IProviderManager} from "../src/interfaces/IProviderManager.sol";
import {MarketTest} from "./utils/Market.sol";
import {Vm} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice How providers come, stay and go.
contract ProvidersTest is MarketTest {
    address internal constant NEWCOMER = address(0xC3);

    // ------------------------------------------------------------------------------------------------------- register

    function test_RegisterWaits() public {
        expectEmit(address(providers));
        emit IProviderManager.ProviderWaitingForApproval(NEWCOMER);
        _register(NEWCOMER, _prices());

        yes(providers.isWaitingForApproval(NEWCOMER), "waiting");
        no(providers.isValidForScheduling(NEWCOMER), "not valid yet");
        Provider memory provider = providers.getWaitingForApprovalProvider(NEWCOMER);
        same(provider.addr, NEWCOMER, "address");
        same(abi.encode(provider.providerHardware), abi.encode(_hardware()), "hardware");
        same(abi.encode(provider.providerPrices), abi.encode(_prices()), "prices");
        same(abi.encode(provider.labels), abi.encode(_labels()), "labels");
        same(providers.getProvider(NEWCOMER).addr, address(0), "not joined");
    }

    /// @dev Of a repeat nothing is told but the prices.
    function _onlyTheOffer(uint256 gpu, uint256 cpu, uint256 mem) private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs.length, 1, "events");
        same(logs[0].topics[0], IProviderManager.ProviderOffer.selector, "which");
        same(logs[0].data, abi.encode(gpu, cpu, mem), "the prices");
    }

    /// @notice Supervisors register at every start.
    function test_RegisterAgainWhileWaiting() public {
        _register(NEWCOMER, _prices());
        vm.recordLogs();
        _register(NEWCOMER, ProviderPrices({gpuPricePerMin: 1, cpuPricePerMin: 2, memPricePerMin: 3}));
        _onlyTheOffer(1, 2, 3);
        same(providers.getWaitingForApprovalProvider(NEWCOMER).providerPrices.cpuPricePerMin, 2, "the latest offer");
        providers.approve(NEWCOMER);
        same(providers.getProviderPrices(NEWCOMER).cpuPricePerMin, 2, "is what joins");
    }

    function test_RegisterAgainAfterJoining() public {
        ProviderHardware memory hardware = _hardware();
        hardware.cpusPerNode[0] = 128;
        vm.recordLogs();
        vm.prank(PROVIDER);
        providers.register(hardware, _prices(), new Label[](0));

        _onlyTheOffer(11e15, 5e15, 1e15);
        yes(providers.isValidForScheduling(PROVIDER), "still joined");
        no(providers.isWaitingForApproval(PROVIDER), "not waiting");
        same(providers.getProviderHardware(PROVIDER).cpusPerNode[0], 128, "the new hardware");
        same(providers.getLabels(PROVIDER).length, 0, "the new labels");
    }

    function test_RegisterUnchangedWhileBanned() public {
        providers.ban(PROVIDER);
        _register(PROVIDER, _prices());
        yes(providers.isBanned(PROVIDER), "still banned");
        yes(providers.getProvider(PROVIDER).isBanned, "in its record too");
        no(providers.isValidForScheduling(PROVIDER), "not valid");
    }

    function test_RegisterChecksTheHardware() public {
        ProviderHardware[6] memory bad = [_hardware(), _hardware(), _hardware(), _hardware(), _hardware(), _hardware()];
        bad[0].nodes = 0;
        bad[1].gpusPerNode = new uint64[](2);
        bad[2].cpusPerNode = new uint64[](2);
        bad[3].memPerNode = new uint64[](0);
        bad[4].cpusPerNode[0] = 0;
        bad[5].memPerNode[0] = 0;
        bytes4[6] memory errors = [
            ProviderManager.InvalidNodesCount.selector,
            ProviderManager.ArrayLengthMismatch.selector,
            ProviderManager.ArrayLengthMismatch.selector,
            ProviderManager.ArrayLengthMismatch.selector,
            ProviderManager.InvalidTotalCpus.selector,
            ProviderManager.InvalidTotalMem.selector
        ];
        for (uint256 i = 0; i < bad.length; i++) {
            vm.expectRevert(abi.encodeWithSelector(errors[i]));
            providers.register(bad[i], _prices(), new Label[](0));
        }
    }

    // -------------------------------------------------------------------------------------------------------- approve

    function test_ApproveJoins() public {
        _register(NEWCOMER, _prices());
        expectEmit(address(providers));
        emit IProviderManager.ProviderApproved(NEWCOMER);
        providers.approve(NEWCOMER);

        yes(providers.isValidForScheduling(NEWCOMER), "valid");
        no(providers.isWaitingForApproval(NEWCOMER), "no longer waiting");
        same(providers.getWaitingForApprovalProvider(NEWCOMER).addr, address(0), "no longer on the waiting list");
        Provider memory provider = providers.getProvider(NEWCOMER);
        same(provider.addr, NEWCOMER, "address");
        same(abi.encode(provider.labels), abi.encode(_labels()), "labels");
    }

    function test_ApproveNeedsAWaitingOne() public {
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.WaitingApprovalOnly.selector));
        providers.approve(NEWCOMER);
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.WaitingApprovalOnly.selector));
        providers.approve(PROVIDER);
    }

    // ------------------------------------------------------------------------------------------------ remove and ban

    function test_RemoveAndComeBack() public {
        expectEmit(address(providers));
        emit IProviderManager.ProviderRemoved(PROVIDER);
        providers.remove(PROVIDER);
        no(providers.isValidForScheduling(PROVIDER), "gone");
        same(abi.encode(providers.getProvider(PROVIDER)), abi.encode(_nobody()), "nothing left");

        expectEmit(address(providers));
        emit IProviderManager.ProviderWaitingForApproval(PROVIDER);
        _register(PROVIDER, _prices());
        providers.approve(PROVIDER);
        yes(providers.isValidForScheduling(PROVIDER), "back");
    }

    function test_RemoveAWaitingOne() public {
        _register(NEWCOMER, _prices());
        providers.remove(NEWCOMER);
        no(providers.isWaitingForApproval(NEWCOMER), "turned down");
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.NoProvider.selector));
        providers.remove(NEWCOMER);
    }

    function test_BanAndUnban() public {
        expectEmit(address(providers));
        emit IProviderManager.ProviderBanChanged(PROVIDER, true);
        providers.ban(PROVIDER);
        yes(providers.isBanned(PROVIDER), "banned");
        no(providers.isValidForScheduling(PROVIDER), "not valid");
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.AlreadyDone.selector));
        providers.ban(PROVIDER);

        expectEmit(address(providers));
        emit IProviderManager.ProviderBanChanged(PROVIDER, false);
        providers.unban(PROVIDER);
        yes(providers.isValidForScheduling(PROVIDER), "valid again");
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.AlreadyDone.selector));
        providers.unban(PROVIDER);
    }

    function test_BanOutlivesRemoval() public {
        providers.ban(PROVIDER);
        providers.remove(PROVIDER);
        // Its supervisor must be able to start, to end what it runs.
        _register(PROVIDER, _prices());
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.Banned.selector));
        providers.approve(PROVIDER);

        providers.unban(PROVIDER);
        providers.approve(PROVIDER);
        yes(providers.isValidForScheduling(PROVIDER), "joined again");
    }

    function test_BannedWhileWaiting() public {
        _register(NEWCOMER, _prices());
        providers.ban(NEWCOMER);
        _register(NEWCOMER, _prices());
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.Banned.selector));
        providers.approve(NEWCOMER);
        providers.unban(NEWCOMER);
        providers.approve(NEWCOMER);
        yes(providers.isValidForScheduling(NEWCOMER), "valid after the ban");
    }

    /// @notice The fields as of version 1.2, without labels.
    function test_FieldsOfAProvider() public {
        _register(NEWCOMER, _prices());
        providers.ban(NEWCOMER);
        bytes memory none = abi.encode(address(0), _nobody().providerHardware, _nobody().providerPrices, false);
        same(_fields(providers.providers.selector, PROVIDER), _known(PROVIDER, false), "joined");
        same(_fields(providers.waitingApprovalProviders.selector, PROVIDER), none, "not waiting");
        same(_fields(providers.waitingApprovalProviders.selector, NEWCOMER), _known(NEWCOMER, true), "waiting");
        same(_fields(providers.waitingApprovalProviders.selector, STRANGER), none, "nobody waits");
        same(_fields(providers.providers.selector, STRANGER), none, "nobody joined");
    }

    function _fields(bytes4 getter, address provider) private view returns (bytes memory fields) {
        (, fields) = address(providers).staticcall(abi.encodeWithSelector(getter, provider));
    }

    function _known(address provider, bool banned) private pure returns (bytes memory) {
        return abi.encode(provider, _hardware(), _prices(), banned);
    }

    function test_CountsOfJobs() public {
        providers.grantRole(providers.METASCHEDULER_CONTRACT_ROLE(), address(this));
        providers.incJobCount(PROVIDER);
        yes(providers.countClaims(PROVIDER, 3), "may claim");
        same(providers.jobCountByProvider(PROVIDER), 4, "counted");
        providers.ban(PROVIDER);
        no(providers.countClaims(PROVIDER, 3), "may not");
        same(providers.getJobCount(PROVIDER), 4, "not counted");
    }

    function test_BanNeedsAProvider() public {
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.NoProvider.selector));
        providers.ban(NEWCOMER);
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    function test_UnknownAddressesReadAsZeros() public view {
        same(abi.encode(providers.getProvider(STRANGER)), abi.encode(_nobody()), "getProvider");
        same(abi.encode(providers.getWaitingForApprovalProvider(STRANGER)), abi.encode(_nobody()), "waiting");
        same(abi.encode(providers.getProviderHardware(STRANGER)), abi.encode(_nobody().providerHardware), "hardware");
        same(providers.getProviderPrices(STRANGER).cpuPricePerMin, 0, "prices");
        same(providers.getLabels(STRANGER).length, 0, "labels");
        same(providers.getJobCount(STRANGER), 0, "job count");
        no(providers.isBanned(STRANGER), "isBanned");
        no(providers.isValidForScheduling(STRANGER), "isValidForScheduling");
        no(providers.isWaitingForApproval(STRANGER), "isWaitingForApproval");
        _queued(STRANGER, 0, 0, 0);
    }

    // ---------------------------------------------------------------------------------------------- list of the joined

    function test_ListInPages() public {
        _join(NEWCOMER);
        same(providers.elementCount(), 3, "joined");
        (bytes32[] memory page, uint256 length, uint256 cursor) = providers.fetchPage(0, 2);
        same(length, 2, "first page");
        same(page[0], _data(PROVIDER), "in the order of joining");
        same(page[1], _data(OTHER), "in the order of joining");
        (page, length, cursor) = providers.fetchPage(cursor, 10);
        same(length, 1, "last page");
        same(page.length, 1, "no padding");
        same(page[0], _data(NEWCOMER), "the newest last");
        same(cursor, 0, "no more pages");
    }

    function test_ListForgetsTheRemoved() public {
        _join(NEWCOMER);
        providers.remove(OTHER);
        (bytes32[] memory page, uint256 length,) = providers.fetchPage(0, 10);
        same(length, 2, "left");
        same(page[0], _data(PROVIDER), "first");
        same(page[1], _data(NEWCOMER), "second");
        (uint256 id, uint256 next, uint256 prev,) = providers.get(providers.head());
        same(next, providers.tail(), "linked over the gap");
        same(prev, 0, "nothing before the head");
        (, uint256 afterTail, uint256 beforeTail,) = providers.get(providers.tail());
        same(beforeTail, id, "linked back");
        same(afterTail, 0, "nothing behind the tail");

        providers.remove(PROVIDER);
        providers.remove(NEWCOMER);
        same(providers.elementCount() + providers.head() + providers.tail(), 0, "empty");
        (, length,) = providers.fetchPage(0, 10);
        same(length, 0, "empty page");
    }

    function test_ListFinds() public view {
        uint256 id = providers.findIdForDataFrom(_data(OTHER), 0);
        same(id, 2, "from the head");
        same(providers.findIdForDataFrom(_data(PROVIDER), id), 0, "not behind");
        same(providers.findIdForDataFrom(_data(OTHER), 99), 0, "from an unknown object");
    }

    function test_ListEvents() public {
        _register(NEWCOMER, _prices());
        expectEmit(address(providers));
        emit ProviderList.ObjectCreated(3, _data(NEWCOMER));
        expectEmit(address(providers));
        emit ProviderList.ObjectsLinked(2, 3);
        expectEmit(address(providers));
        emit ProviderList.NewTail(3);
        providers.approve(NEWCOMER);

        expectEmit(address(providers));
        emit ProviderList.NewHead(2);
        expectEmit(address(providers));
        emit ProviderList.ObjectRemoved(1);
        providers.remove(PROVIDER);
    }

    function _data(address provider) private pure returns (bytes32) {
        return bytes32(uint256(uint160(provider)));
    }

    function _nobody() private pure returns (Provider memory provider) {}
}
