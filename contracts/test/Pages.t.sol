// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobStore} from "../src/JobStore.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice Many jobs by one call, whole and in order.
contract PagesTest is MarketTest {
    address private constant NEIGHBOUR = address(0x7E16);

    bytes32[] private ids;

    /// @notice Jobs of every kind: of two customers, at two providers, in all statuses, with and without all that few
    /// have.
    function setUp() public override {
        super.setUp();
        _fund(NEIGHBOUR, 10 * LOCKED);
        ids.push(_job(JobStatus.PENDING));
        ids.push(_neighbours());
        ids.push(_job(JobStatus.RUNNING));
        ids.push(_job(JobStatus.RUNNING));
        _schedule(ids[0], OTHER);
        ids.push(_neighbours());
        ids.push(_job(JobStatus.META_SCHEDULED));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(
            ids[3], uint8(JobStatus.FAILED), 1, "no luck, and a reason of more than a word", 256
        );
        _cancel(ids[2]);
        vm.prank(CUSTOMER);
        market.topUpJob(ids[2], PER_MINUTE);
    }

    function _neighbours() private returns (bytes32) {
        JobDefinition memory definition = _definition();
        definition.uses = _labels();
        definition.affinity = new Affinity[](1);
        definition.affinity[0] = Affinity({label: Label({key: "zone", value: "ch"}), op: "=="});
        vm.prank(NEIGHBOUR);
        return market.requestNewJob(definition, LOCKED, "neighbour", true);
    }

    /// @dev A page has these jobs, by their place in `ids`, each as `get` gives it.
    function _has(Job[] memory page, bytes memory places) private view {
        same(page.length, places.length, "length of the page");
        for (uint256 i = 0; i < page.length; i++) {
            same(abi.encode(page[i]), abi.encode(jobs.get(ids[uint8(places[i])])), "a whole job");
        }
    }

    function _page(address customer, address provider, uint256 statuses) private view returns (Job[] memory page) {
        uint256 next;
        (page, next) = jobs.getPage(JobFilter(customer, provider, statuses), 0, 100);
        same(next, 0, "there is no more");
    }

    function test_AllOfThem() public view {
        _has(_page(address(0), address(0), 0), hex"050403020100");
        _has(jobs.getMany(ids), hex"000102030405");
        _has(jobs.getMany(new bytes32[](0)), hex"");
    }

    function test_OfACustomer() public view {
        _has(_page(CUSTOMER, address(0), 0), hex"05030200");
        _has(_page(NEIGHBOUR, address(0), 0), hex"0401");
        _has(_page(STRANGER, address(0), 0), hex"");
    }

    function test_OfAProvider() public view {
        _has(_page(address(0), PROVIDER, 0), hex"050302");
        _has(_page(address(0), OTHER, 0), hex"00");
    }

    function test_OfSomeStatuses() public view {
        uint256 hot = 15;
        _has(_page(address(0), address(0), hot), hex"0504020100");
        _has(_page(CUSTOMER, PROVIDER, hot), hex"0502");
        _has(_page(address(0), address(0), 1 << uint8(JobStatus.FAILED)), hex"03");
    }

    /// @notice A job that changed hands is in the list of who requested it, but no page of that customer's has it.
    function test_OfACustomerWhoGaveAJobAway() public {
        jobs.grantRole(jobs.METASCHEDULER_ROLE(), address(this));
        jobs.setCustomerAddr(ids[5], NEIGHBOUR);
        _has(_page(CUSTOMER, address(0), 0), hex"030200");
        _has(_page(address(0), PROVIDER, 0), hex"050302");
    }

    function test_PageByPage() public {
        JobFilter memory filter = JobFilter(CUSTOMER, address(0), 0);
        (Job[] memory page, uint256 next) = jobs.getPage(filter, 0, 3);
        _has(page, hex"050302");
        (page, next) = jobs.getPage(filter, next, 3);
        _has(page, hex"00");
        same(next, 0, "the end");

        // How many are looked at is bounded, not how many are found.
        filter = JobFilter(address(0), OTHER, 0);
        (page, next) = jobs.getPage(filter, 0, 4);
        _has(page, hex"");
        same(next, 3, "goes on before the third");
        (page, next) = jobs.getPage(filter, next, 4);
        _has(page, hex"00");
        same(next, 0, "the end");
        (page, next) = jobs.getPage(filter, 1000, 100);
        _has(page, hex"00");
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 0, 1, type(uint256).max));
        jobs.getPage(filter, 0, 0);
    }

    function test_ACustomersIds() public {
        bytes32[] memory own = jobs.getByCustomer(CUSTOMER);
        same(own.length, 4, "jobs");
        for (uint256 i = 1; i < own.length; i++) {
            yes(own[i] > own[i - 1], "oldest first");
        }
        for (uint256 i = 0; i < own.length; i++) {
            same(jobs.jobIdByCustomer(CUSTOMER, i), own[i], "by index");
        }
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.jobIdByCustomer(CUSTOMER, 4);
        vm.expectRevert(abi.encodeWithSelector(JobStore.InvalidJob.selector));
        jobs.jobIdByCustomer(STRANGER, 0);
    }

    /// @notice The fields one by one are the struct without the offset in front.
    function test_FieldsAsOfVersion12() public view {
        (, bytes memory fields) = address(jobs).staticcall(abi.encodeCall(jobs.jobs, (ids[3])));
        same(abi.encodePacked(uint256(32), fields), abi.encode(jobs.get(ids[3])), "fields");
    }

    function test_UnknownIdsSpoilNothing() public view {
        bytes32[] memory some = new bytes32[](3);
        (some[0], some[1], some[2]) = (ids[5], bytes32(uint256(77)), ids[0]);
        Job[] memory page = jobs.getMany(some);
        same(abi.encode(page[0]), abi.encode(jobs.get(ids[5])), "before");
        Job memory none;
        same(abi.encode(page[1]), abi.encode(none), "zeros");
        same(abi.encode(page[2]), abi.encode(jobs.get(ids[0])), "after");
        same(jobs.providerOf(bytes32(uint256(77))), address(0), "provider of an unknown job");
    }

    function test_JoinedProvidersPageByPage() public {
        (Provider[] memory page, uint256 next) = providers.getProviders(0, 1);
        same(abi.encode(page[0]), abi.encode(providers.getProvider(PROVIDER)), "the first");
        (page, next) = providers.getProviders(next, 10);
        same(abi.encode(page[0]), abi.encode(providers.getProvider(OTHER)), "the second");
        same(page.length, 1, "the rest");
        same(next, 0, "the end");
        providers.ban(OTHER);
        providers.remove(PROVIDER);
        (page, next) = providers.getProviders(0, 10);
        same(page.length, 1, "who is joined");
        yes(page[0].isBanned, "banned, and says so");
    }

    function test_Offers() public {
        (bool valid, ProviderPrices memory prices) = providers.getOffer(PROVIDER);
        yes(valid, "valid");
        same(abi.encode(prices), abi.encode(_prices()), "prices");
        providers.ban(PROVIDER);
        (valid, prices) = providers.getOffer(PROVIDER);
        no(valid, "banned");
        same(prices.cpuPricePerMin, 0, "no prices");
    }
}
