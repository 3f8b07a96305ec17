// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ProviderManager} from "../src/ProviderManager.sol";
import {IProviderManager} from "../src/interfaces/IProviderManager.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice What the register of providers keeps, and what it shows of whom.
contract RegisterTest is MarketTest {
    address private constant NEWCOMER = address(0xC3);

    function _nodes(uint64 count) private pure returns (ProviderHardware memory hardware) {
        hardware.nodes = count;
        hardware.gpusPerNode = new uint64[](count);
        hardware.cpusPerNode = new uint64[](count);
        hardware.memPerNode = new uint64[](count);
        for (uint64 i = 0; i < count; i++) {
            (hardware.gpusPerNode[i], hardware.cpusPerNode[i], hardware.memPerNode[i]) = (i, 2 * i + 1, 3 * i + 1);
        }
    }

    // ---------------------------------------------------------------------------------------------------------- bounds

    function test_BoundsOfPrices() public {
        uint256[3] memory highest = [uint256(type(uint96).max), type(uint96).max, type(uint64).max];
        ProviderPrices memory top = ProviderPrices(highest[0], highest[1], highest[2]);
        _register(NEWCOMER, top);
        same(
            abi.encode(providers.getWaitingForApprovalProvider(NEWCOMER).providerPrices), abi.encode(top), "the highest"
        );
        for (uint256 i = 0; i < 3; i++) {
            uint256[2] memory large = [highest[i] + 1, type(uint256).max];
            for (uint256 j = 0; j < 2; j++) {
                ProviderPrices memory prices = ProviderPrices(1, 1, 1);
                uint256 value = large[j];
                assembly ("memory-safe") {
                    mstore(add(prices, mul(32, i)), value)
                }
                vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, value, 0, highest[i]));
                _register(NEWCOMER, prices);
            }
        }
        same(abi.encode(providers.getWaitingForApprovalProvider(NEWCOMER).providerPrices), abi.encode(top), "as before");
    }

    function test_HardwareOfSeveralNodes() public {
        ProviderHardware memory hardware = _nodes(9);
        vm.prank(PROVIDER);
        providers.register(hardware, _prices(), new Label[](0));
        same(abi.encode(providers.getProviderHardware(PROVIDER)), abi.encode(hardware), "nine nodes");
        hardware = _nodes(1);
        vm.prank(PROVIDER);
        providers.register(hardware, _prices(), new Label[](0));
        same(abi.encode(providers.getProviderHardware(PROVIDER)), abi.encode(hardware), "one node");
    }

    /// @notice A node may lack something, the whole may not lack CPUs or memory; GPUs it may.
    function test_HardwareAltogether() public {
        ProviderHardware memory hardware = _nodes(3);
        (hardware.cpusPerNode[0], hardware.cpusPerNode[1]) = (0, 0);
        (hardware.memPerNode[1], hardware.memPerNode[2]) = (0, 0);
        delete hardware.gpusPerNode;
        hardware.gpusPerNode = new uint64[](3);
        vm.prank(PROVIDER);
        providers.register(hardware, _prices(), new Label[](0));

        hardware.cpusPerNode[2] = 0;
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.InvalidTotalCpus.selector));
        providers.register(hardware, _prices(), new Label[](0));
        hardware.cpusPerNode[2] = 1;
        hardware.memPerNode[0] = 0;
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.InvalidTotalMem.selector));
        providers.register(hardware, _prices(), new Label[](0));

        ProviderHardware memory empty;
        empty.nodes = type(uint64).max;
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.ArrayLengthMismatch.selector));
        providers.register(empty, _prices(), new Label[](0));
    }

    function _text(uint256 length) private pure returns (string memory) {
        bytes memory text = new bytes(length);
        for (uint256 i = 0; i < length; i++) {
            text[i] = "x";
        }
        return string(text);
    }

    /// @notice What a provider says of itself is so short that a transaction holds it, and a call reads it.
    function test_TheLargestRecord() public {
        ProviderHardware memory hardware = _nodes(512);
        for (uint256 i = 0; i < 512; i++) {
            hardware.gpusPerNode[i] = type(uint64).max;
            hardware.cpusPerNode[i] = type(uint64).max;
            hardware.memPerNode[i] = type(uint64).max;
        }
        Label[] memory labels = new Label[](128);
        for (uint256 i = 0; i < 128; i++) {
            uint256 length = i < 61 ? 32 : 1;
            labels[i] = Label(_text(length), _text(length));
        }
        labels[127].value = _text(59);
        vm.prank(STRANGER);
        providers.register(hardware, _prices(), labels);
        yes(vm.lastCallGas().gasTotalUsed < 20_000_000, "gas of a new one");
        vm.prank(PROVIDER);
        providers.register(hardware, _prices(), labels);
        (Provider[] memory page,) = providers.getProviders(0, 1);
        yes(vm.lastCallGas().gasTotalUsed < 10_000_000, "gas");
        same(page[0].labels.length, 128, "labels");

        labels[127].value = _text(60);
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 4097, 0, 4096));
        providers.register(hardware, _prices(), labels);
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 129, 0, 128));
        providers.register(hardware, _prices(), new Label[](129));
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 513, 0, 512));
        providers.register(_nodes(513), _prices(), new Label[](0));
    }

    // ----------------------------------------------------------------------------------------------- come, go, come

    function test_TheRecordAfterARemoval() public {
        bytes32 id = _job(JobStatus.RUNNING);
        providers.remove(PROVIDER);
        Provider memory none;
        same(abi.encode(providers.getProvider(PROVIDER)), abi.encode(none), "gone");
        same(abi.encode(providers.getWaitingForApprovalProvider(PROVIDER)), abi.encode(none), "nor waiting");
        (bool valid, ProviderPrices memory prices) = providers.getOffer(PROVIDER);
        no(valid, "no offer");
        same(abi.encode(prices), abi.encode(none.providerPrices), "no price");
        same(providers.getJobCount(PROVIDER), 1, "the count stays");

        ProviderHardware memory hardware = _nodes(2);
        Label[] memory labels = new Label[](1);
        labels[0] = Label("zone", "ch");
        expectEmit(address(providers));
        emit IProviderManager.ProviderWaitingForApproval(PROVIDER);
        vm.prank(PROVIDER);
        providers.register(hardware, ProviderPrices(1, 2, 3), labels);
        Provider memory waiting = Provider(PROVIDER, hardware, ProviderPrices(1, 2, 3), labels, false);
        same(abi.encode(providers.getWaitingForApprovalProvider(PROVIDER)), abi.encode(waiting), "the new offer waits");
        same(abi.encode(providers.getProvider(PROVIDER)), abi.encode(none), "not joined yet");
        same(abi.encode(providers.getProviderHardware(PROVIDER)), abi.encode(none.providerHardware), "no hardware yet");
        same(abi.encode(providers.getProviderPrices(PROVIDER)), abi.encode(none.providerPrices), "no prices yet");
        same(providers.getLabels(PROVIDER).length, 0, "no labels yet");
        (valid, prices) = providers.getOffer(PROVIDER);
        no(valid, "no offer yet");
        same(abi.encode(prices), abi.encode(none.providerPrices), "no price yet");
        _set(id, JobStatus.FINISHED, 0);

        providers.approve(PROVIDER);
        same(abi.encode(providers.getProvider(PROVIDER)), abi.encode(waiting), "joined with it");
        same(providers.tail(), 3, "at the end of the list");
        same(providers.jobCountByProvider(PROVIDER), 1, "the count goes on");
    }

    // ------------------------------------------------------------------------------------------------- what shows a
    // ban

    function test_WhatShowsABan() public {
        // Joined.
        providers.ban(PROVIDER);
        _checkShown(PROVIDER, PROVIDER, true, address(0), false);
        // Gone.
        providers.remove(PROVIDER);
        _checkShown(PROVIDER, address(0), true, address(0), false);
        yes(providers.isBanned(PROVIDER), "isBanned");
        // Waiting again.
        expectEmit(address(providers));
        emit IProviderManager.ProviderWaitingForApproval(PROVIDER);
        _register(PROVIDER, _prices());
        _checkShown(PROVIDER, address(0), true, PROVIDER, true);
        vm.expectRevert(abi.encodeWithSelector(ProviderManager.Banned.selector));
        providers.approve(PROVIDER);
        // Unbanned.
        providers.unban(PROVIDER);
        _checkShown(PROVIDER, address(0), false, PROVIDER, false);
        providers.approve(PROVIDER);
        _checkShown(PROVIDER, PROVIDER, false, address(0), false);
        _checkShown(STRANGER, address(0), false, address(0), false);
    }

    function _checkShown(address who, address joined, bool joinedBan, address waiting, bool waitingBan) private view {
        Provider memory provider = providers.getProvider(who);
        same(provider.addr, joined, "joined");
        yes(provider.isBanned == joinedBan, "ban of a joined one");
        (address addr, ProviderHardware memory hardware, ProviderPrices memory prices, bool banned) =
            providers.providers(who);
        same(addr, joined, "joined, without labels");
        yes(banned == joinedBan, "its ban");
        same(abi.encode(hardware, prices), abi.encode(provider.providerHardware, provider.providerPrices), "the same");

        provider = providers.getWaitingForApprovalProvider(who);
        same(provider.addr, waiting, "waiting");
        yes(provider.isBanned == waitingBan, "ban of a waiting one");
        (addr, hardware, prices, banned) = providers.waitingApprovalProviders(who);
        same(addr, waiting, "waiting, without labels");
        yes(banned == waitingBan, "its ban");
        same(abi.encode(hardware, prices), abi.encode(provider.providerHardware, provider.providerPrices), "the same");
    }

    // ---------------------------------------------------------------------------------------------------------- pages

    function test_PagesAtTheEdges() public {
        _join(NEWCOMER);
        (Provider[] memory page, uint256 next) = providers.getProviders(0, type(uint256).max);
        same(page.length, 3, "all");
        same(next, 0, "no more");
        (page, next) = providers.getProviders(0, 0);
        same(page.length, 0, "none asked for");
        same(next, providers.head(), "goes on at the head");
        (page, next) = providers.getProviders(99, 10);
        same(page.length + next, 0, "an unknown place");

        providers.remove(PROVIDER);
        providers.remove(OTHER);
        providers.remove(NEWCOMER);
        (page, next) = providers.getProviders(0, 10);
        same(page.length + next, 0, "none");
    }
}
