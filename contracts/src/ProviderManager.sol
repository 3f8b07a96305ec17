// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IProviderManager} from "./interfaces/IProviderManager.sol";
import {ProviderList} from "./ProviderList.sol";
import {Label, Provider, ProviderHardware, ProviderPrices} from "./Types.sol";

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

    /// @notice Operators of the market: they decide who takes part.
    bytes32 public constant METASCHEDULER_ROLE = keccak256("METASCHEDULER_ROLE");
    /// @notice The MetaScheduler contract: it counts the jobs that a provider claims.
    bytes32 public constant METASCHEDULER_CONTRACT_ROLE = keccak256("METASCHEDULER_CONTRACT_ROLE");
    /// @notice Registering is free.
    uint256 public constant PROVIDER_REGISTRATION_TAX = 0;

    /// @notice The joined providers. A ban outlives a removal: `isBanned` can be all that is left of one.
    mapping(address => Provider) public providers;
    mapping(address => Provider) public waitingApprovalProviders;
    mapping(address => uint64) public jobCountByProvider;

    /// @dev The deployer administers the roles and grants METASCHEDULER_ROLE to whom it trusts.
    constructor() {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    // ---------------------------------------------------------------------------------------------------------- reads

    function getProvider(address _providerAddr) external view returns (Provider memory) {
        return providers[_providerAddr];
    }

    function getWaitingForApprovalProvider(address _providerAddr) external view returns (Provider memory) {
        return waitingApprovalProviders[_providerAddr];
    }

    function getProviderHardware(address _providerAddr) external view returns (ProviderHardware memory) {
        return providers[_providerAddr].providerHardware;
    }

    function getProviderPrices(address _providerAddr) external view returns (ProviderPrices memory) {
        return providers[_providerAddr].providerPrices;
    }

    function getLabels(address _providerAddr) external view returns (Label[] memory) {
        return providers[_providerAddr].labels;
    }

    /// @notice How many jobs a provider has ever claimed.
    function getJobCount(address _providerAddr) external view returns (uint64) {
        return jobCountByProvider[_providerAddr];
    }

    function isBanned(address _providerAddr) external view returns (bool) {
        return providers[_providerAddr].isBanned;
    }

    function isWaitingForApproval(address _providerAddr) external view returns (bool) {
        return _isWaiting(_providerAddr);
    }

    /// @notice Whether jobs may be assigned to it: joined and not banned.
    function isValidForScheduling(address _providerAddr) external view returns (bool) {
        return _isJoined(_providerAddr) && !providers[_providerAddr].isBanned;
    }

    // --------------------------------------------------------------------------------------------- writes, a provider

    /// @notice The caller offers its hardware at these prices. A new provider then waits for approval; a repeat while
    /// it waits replaces the offer; a joined provider stays joined, and new jobs see the new offer.
    function register(ProviderHardware memory _hardware, ProviderPrices memory _prices, Label[] memory _labels)
        external
    {
        _checkHardware(_hardware);
        Provider memory provider = Provider({
            addr: msg.sender,
            providerHardware: _hardware,
            providerPrices: _prices,
            labels: _labels,
            isBanned: providers[msg.sender].isBanned
        });

        if (_isJoined(msg.sender)) {
            providers[msg.sender] = provider;
            return;
        }
        bool first = !_isWaiting(msg.sender);
        if (first && provider.isBanned) revert Banned();
        waitingApprovalProviders[msg.sender] = provider;
        if (first) emit ProviderWaitingForApproval(msg.sender);
    }

    // --------------------------------------------------------------------------------- writes, operators of the market

    /// @notice Lets a waiting provider join.
    function approve(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (!_isWaiting(_providerAddr)) revert WaitingApprovalOnly();
        if (providers[_providerAddr].isBanned) revert Banned();
        providers[_providerAddr] = waitingApprovalProviders[_providerAddr];
        // It may have been banned when it registered; now it is not.
        providers[_providerAddr].isBanned = false;
        delete waitingApprovalProviders[_providerAddr];
        _append(_providerAddr);
        emit ProviderApproved(_providerAddr);
    }

    /// @notice Makes a joined provider leave, or turns a waiting one down. It may register again; jobs it has claimed
    /// it still ends.
    function remove(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (_isJoined(_providerAddr)) {
            bool banned = providers[_providerAddr].isBanned;
            delete providers[_providerAddr];
            providers[_providerAddr].isBanned = banned;
            _drop(_providerAddr);
        } else if (_isWaiting(_providerAddr)) {
            delete waitingApprovalProviders[_providerAddr];
        } else {
            revert NoProvider();
        }
        emit ProviderRemoved(_providerAddr);
    }

    /// @notice Keeps a provider from new jobs, and from joining, until it is unbanned.
    function ban(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        if (!_isJoined(_providerAddr) && !_isWaiting(_providerAddr)) revert NoProvider();
        _setBan(_providerAddr, true);
    }

    function unban(address _providerAddr) external onlyRole(METASCHEDULER_ROLE) {
        _setBan(_providerAddr, false);
    }

    // ------------------------------------------------------------------------------------------ writes, MetaScheduler

    function incJobCount(address _providerAddr) external onlyRole(METASCHEDULER_CONTRACT_ROLE) {
        jobCountByProvider[_providerAddr]++;
    }

    // -------------------------------------------------------------------------------------------------------- private

    function _setBan(address _providerAddr, bool banned) private {
        if (providers[_providerAddr].isBanned == banned) revert AlreadyDone();
        providers[_providerAddr].isBanned = banned;
        emit ProviderBanChanged(_providerAddr, banned);
    }

    function _isJoined(address _providerAddr) private view returns (bool) {
        return providers[_providerAddr].addr != address(0);
    }

    function _isWaiting(address _providerAddr) private view returns (bool) {
        return waitingApprovalProviders[_providerAddr].addr != address(0);
    }

    function _checkHardware(ProviderHardware memory hardware) private pure {
        uint256 nodes = hardware.nodes;
        if (nodes == 0) revert InvalidNodesCount();
        if (
            hardware.gpusPerNode.length != nodes || hardware.cpusPerNode.length != nodes
                || hardware.memPerNode.length != nodes
        ) revert ArrayLengthMismatch();
        if (_isZero(hardware.cpusPerNode)) revert InvalidTotalCpus();
        if (_isZero(hardware.memPerNode)) revert InvalidTotalMem();
    }

    function _isZero(uint64[] memory values) private pure returns (bool) {
        for (uint256 i = 0; i < values.length; i++) {
            if (values[i] != 0) return false;
        }
        return true;
    }
}
