// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IProviderManager} from "./interfaces/IProviderManager.sol";
import {ProviderList} from "./ProviderList.sol";
import {Label, OutOfRange, Provider, ProviderHardware, ProviderPrices} from "./Types.sol";

/// @title The register of providers
/// @notice A provider registers itself; the operators of the market, who hold METASCHEDULER_ROLE, approve, remove and
/// ban it. Anybody reads: an unknown address gives zeros, never a revert.
contract ProviderManager is IProviderManager, ProviderList, AccessControl {
    /// @notice The ban is already as asked for.
    error AlreadyDone();
    /// @notice A list has not one entry a node.
    error ArrayLengthMismatch();
    /// @notice The provider is banned.
    error Banned();
    /// @notice A provider without nodes.
    error InvalidNodesCount();
    /// @notice A provider without CPUs.
    error InvalidTotalCpus();
    /// @notice A provider without memory.
    error InvalidTotalMem();
    /// @notice The address is neither joined nor waiting.
    error NoProvider();
    /// @notice The address is not waiting for approval.
    error WaitingApprovalOnly();

    // ---------------------------------------------------------------------------------------------------------- state

    enum Membership {
        NONE,
        WAITING,
        JOINED
    }

    /// @dev A word of what each claim reads, a word of what each assignment reads, and the rest.
    struct Record {
        Membership membership;
        /// @dev Outlives a removal.
        bool isBanned;
        uint64 jobCount;
        uint96 gpuPricePerMin;
        uint96 cpuPricePerMin;
        uint64 memPricePerMin;
        ProviderHardware hardware;
        Label[] labels;
    }

    /// @notice Operators of the market: they decide who takes part.
    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");
    /// @notice The MetaScheduler contract: it counts the jobs that a provider claims.
    bytes32 public constant METASCHEDULER_CONTRACT_ROLE = keccak256("METASCHEDULER_CONTRACT_ROLE");
    /// @notice Registering is free.
    uint256 public constant PROVIDER_REGISTRATION_TAX = 0;

    /// @notice What a provider may say of itself: so much that a transaction holds it, and everybody can read it.
    uint256 public constant MAX_NODES = 512;
    uint256 public constant MAX_LABELS = 128;
    uint256 public constant MAX_LABEL_BYTES = 4096;

    mapping(address provider => Record) private _records;

    /// @dev The deployer administers the roles and grants METASCHEDULER_ROLE to whom it trusts.
    constructor() {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    /// @notice A joined provider. Of one that is banned and gone, the ban is all that is left.
    function getProvider(address _providerAddr) external view returns (Provider memory) {
        return _provider(_providerAddr, Membership.JOINED);
    }

    function getWaitingForApprovalProvider(address _providerAddr) external view returns (Provider memory) {
        return _provider(_providerAddr, Membership.WAITING);
    }

    /// @notice A joined provider without its labels.
    function providers(address _providerAddr)
        external
        view
        returns (
            address addr,
            ProviderHardware memory providerHardware,
            ProviderPrices memory providerPrices,
            bool isBanned_
        )
    {
        return _summary(_providerAddr, Membership.JOINED);
    }

    /// @notice A waiting provider without its labels.
    function waitingApprovalProviders(address _providerAddr)
        external
        view
        returns (
            address addr,
            ProviderHardware memory providerHardware,
            ProviderPrices memory providerPrices,
            bool isBanned_
        )
    {
        return _summary(_providerAddr, Membership.WAITING);
    }

    /// @notice Joined providers in the order in which they joined, banned ones too, a page at a time.
    /// @param cursor 0 for the first page, then `next` of the page before.
    /// @param howMany The most to return.
    /// @return page The providers.
    /// @return next Where the next page begins; 0 when there is none.
    function getProviders(uint256 cursor, uint256 howMany)
        external
        view
        returns (Provider[] memory page, uint256 next)
    {
        bytes32[] memory addresses;
        (addresses, next) = _page(cursor, howMany);
        page = new Provider[](addresses.length);
        for (uint256 i = 0; i < addresses.length; i++) {
            page[i] = _provider(address(uint160(uint256(addresses[i]))), Membership.JOINED);
        }
    }

    function getProviderHardware(address _providerAddr) external view returns (ProviderHardware memory hardware) {
        if (_is(_providerAddr, Membership.JOINED)) hardware = _records[_providerAddr].hardware;
    }

    function getProviderPrices(address _providerAddr) external view returns (ProviderPrices memory prices) {
        if (_is(_providerAddr, Membership.JOINED)) prices = _prices(_providerAddr);
    }

    function getLabels(address _providerAddr) external view returns (Label[] memory labels) {
        if (_is(_providerAddr, Membership.JOINED)) labels = _records[_providerAddr].labels;
    }

    /// @notice How many jobs a provider has ever claimed.
    function getJobCount(address _providerAddr) external view returns (uint64) {
        return _records[_providerAddr].jobCount;
    }

    /// @notice As getJobCount.
    function jobCountByProvider(address _providerAddr) external view returns (uint64) {
        return _records[_providerAddr].jobCount;
    }

    function isBanned(address _providerAddr) external view returns (bool) {
        return _records[_providerAddr].isBanned;
    }

    function isWaitingForApproval(address _providerAddr) external view returns (bool) {
        return _is(_providerAddr, Membership.WAITING);
    }

    /// @notice Whether jobs may be assigned to it: joined and not banned.
    function isValidForScheduling(address _providerAddr) external view returns (bool) {
        return _isValid(_providerAddr);
    }

    /// @notice Whether jobs may be assigned to a provider, and its prices.
    function getOffer(address _providerAddr) external view returns (bool valid, ProviderPrices memory prices) {
        valid = _isValid(_providerAddr);
        if (valid) prices = _prices(_providerAddr);
    }

    // --------------------------------------------------------------------------------------------- writes, a provider

    /// @notice The caller offers its hardware at these prices. A new provider then waits for approval; a repeat while
    /// it waits replaces the offer; a joined provider stays joined, and new jobs see the new offer. A banned one may
    /// register too, so that its supervisor can start and end what it runs; it gets nothing new.
    function register(
        ProviderHardware calldata _hardware,
        ProviderPrices calldata _providerPrices,
        Label[] calldata _labels
    ) external {
        _checkHardware(_hardware);
        _checkLabels(_labels);
        Record storage record = _records[msg.sender];
        record.gpuPricePerMin = uint96(_bounded(_providerPrices.gpuPricePerMin, type(uint96).max));
        record.cpuPricePerMin = uint96(_bounded(_providerPrices.cpuPricePerMin, type(uint96).max));
        record.memPricePerMin = uint64(_bounded(_providerPrices.memPricePerMin, type(uint64).max));
        record.hardware = _hardware;
        record.labels = _labels;
        emit ProviderOffer(msg.sender, record.gpuPricePerMin, record.cpuPricePerMin, record.memPricePerMin);
        if (record.membership != Membership.NONE) return;
        emit ProviderWaitingForApproval(msg.sender);
        _setMembership(msg.sender, Membership.WAITING);
    }

    // --------------------------------------------------------------------------------- writes, operators of the market

    /// @notice Lets a waiting provider join.
    function approve(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (!_is(_providerAddr, Membership.WAITING)) revert WaitingApprovalOnly();
        if (_records[_providerAddr].isBanned) revert Banned();
        _append(_providerAddr);
        emit ProviderApproved(_providerAddr);
        _setMembership(_providerAddr, Membership.JOINED);
    }

    /// @notice Makes a joined provider leave, or turns a waiting one down. It may register again; jobs it has claimed
    /// it still ends.
    function remove(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        Record storage record = _records[_providerAddr];
        if (record.membership == Membership.NONE) revert NoProvider();
        if (record.membership == Membership.JOINED) _drop(_providerAddr);
        emit ProviderRemoved(_providerAddr);
        _setMembership(_providerAddr, Membership.NONE);
    }

    /// @notice Keeps a provider from new jobs, and from joining, until it is unbanned; what it has claimed it may end.
    function ban(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (_is(_providerAddr, Membership.NONE)) revert NoProvider();
        _setBan(_providerAddr, true);
    }

    function unban(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        _setBan(_providerAddr, false);
    }

    // ------------------------------------------------------------------------------------------ writes, MetaScheduler

    function incJobCount(address _providerAddr) external onlyRole(METASCHEDULER_CONTRACT_ROLE) {
        _records[_providerAddr].jobCount++;
    }

    /// @notice Counts jobs that a provider claims, if it may claim.
    function countClaims(address _providerAddr, uint64 _count)
        external
        onlyRole(METASCHEDULER_CONTRACT_ROLE)
        returns (bool valid)
    {
        valid = _isValid(_providerAddr);
        if (valid) _records[_providerAddr].jobCount += _count;
    }

    // -------------------------------------------------------------------------------------------------------- private

    function _setBan(address _providerAddr, bool banned) private {
        if (_records[_providerAddr].isBanned == banned) revert AlreadyDone();
        _records[_providerAddr].isBanned = banned;
        emit ProviderBanChanged(_providerAddr, banned);
        emit ProviderChanged(_providerAddr, uint8(_records[_providerAddr].membership), banned);
    }

    function _setMembership(address _providerAddr, Membership membership) private {
        _records[_providerAddr].membership = membership;
        emit ProviderChanged(_providerAddr, uint8(membership), _records[_providerAddr].isBanned);
    }

    function _is(address _providerAddr, Membership membership) private view returns (bool) {
        return _records[_providerAddr].membership == membership;
    }

    function _isValid(address _providerAddr) private view returns (bool) {
        Record storage record = _records[_providerAddr];
        return record.membership == Membership.JOINED && !record.isBanned;
    }

    function _prices(address _providerAddr) private view returns (ProviderPrices memory) {
        Record storage record = _records[_providerAddr];
        return ProviderPrices(record.gpuPricePerMin, record.cpuPricePerMin, record.memPricePerMin);
    }

    function _provider(address _providerAddr, Membership membership) private view returns (Provider memory provider) {
        (provider.addr, provider.providerHardware, provider.providerPrices, provider.isBanned) =
            _summary(_providerAddr, membership);
        if (provider.addr != address(0)) provider.labels = _records[_providerAddr].labels;
    }

    /// @dev Zeros unless the provider is what is asked for; but a ban shows for whoever is not waiting.
    function _summary(address _providerAddr, Membership membership)
        private
        view
        returns (address addr, ProviderHardware memory hardware, ProviderPrices memory prices, bool banned)
    {
        Record storage record = _records[_providerAddr];
        banned = record.isBanned && (membership == Membership.JOINED || record.membership == membership);
        if (record.membership == membership) {
            (addr, hardware, prices) = (_providerAddr, record.hardware, _prices(_providerAddr));
        }
    }

    function _checkHardware(ProviderHardware calldata hardware) private pure {
        uint256 nodes = hardware.nodes;
        if (nodes == 0) revert InvalidNodesCount();
        if (
            hardware.gpusPerNode.length != nodes || hardware.cpusPerNode.length != nodes
                || hardware.memPerNode.length != nodes
        ) revert ArrayLengthMismatch();
        _bounded(nodes, MAX_NODES);
        if (_isZero(hardware.cpusPerNode)) revert InvalidTotalCpus();
        if (_isZero(hardware.memPerNode)) revert InvalidTotalMem();
    }

    function _checkLabels(Label[] calldata labels) private pure {
        _bounded(labels.length, MAX_LABELS);
        uint256 total;
        for (uint256 i = 0; i < labels.length; i++) {
            total += bytes(labels[i].key).length + bytes(labels[i].value).length;
        }
        _bounded(total, MAX_LABEL_BYTES);
    }

    function _isZero(uint64[] calldata values) private pure returns (bool) {
        for (uint256 i = 0; i < values.length; i++) {
            if (values[i] != 0) return false;
        }
        return true;
    }

    function _bounded(uint256 value, uint256 highest) private pure returns (uint256) {
        if (value > highest) revert OutOfRange(value, 0, highest);
        return value;
    }
}
