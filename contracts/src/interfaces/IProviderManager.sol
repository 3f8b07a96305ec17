// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Label, Provider, ProviderHardware, ProviderPrices} from "../Types.sol";

/// @title What the market needs of the register of providers
interface IProviderManager {
    /// @notice A provider asked to join.
    event ProviderWaitingForApproval(address addr);
    /// @notice A provider joined.
    event ProviderApproved(address addr);
    /// @notice A provider left, or its request was turned down.
    event ProviderRemoved(address addr);
    /// @notice A provider was banned (true) or readmitted (false).
    event ProviderBanChanged(address addr, bool status);

    /// @notice What a provider offers from now on, in wei of credit a minute: told at each registration, for clients
    /// that ask their node for one provider alone.
    event ProviderOffer(
        address indexed provider, uint256 gpuPricePerMin, uint256 cpuPricePerMin, uint256 memPricePerMin
    );
    /// @notice Where a provider stands, whenever that changes: 0 outside, 1 waiting for approval, 2 joined.
    event ProviderChanged(address indexed provider, uint8 membership, bool banned);

    function register(ProviderHardware memory _hardware, ProviderPrices memory _prices, Label[] memory _labels) external;
    function approve(address _providerAddr) external;
    function remove(address _providerAddr) external;
    function ban(address _providerAddr) external;
    function unban(address _providerAddr) external;
    function incJobCount(address _providerAddr) external;
    function countClaims(address _providerAddr, uint64 _count) external returns (bool valid);

    function getProvider(address _providerAddr) external view returns (Provider memory);
    function getWaitingForApprovalProvider(address _providerAddr) external view returns (Provider memory);
    function getProviderHardware(address _providerAddr) external view returns (ProviderHardware memory);
    function getProviderPrices(address _providerAddr) external view returns (ProviderPrices memory);
    function getLabels(address _providerAddr) external view returns (Label[] memory);
    function getJobCount(address _providerAddr) external view returns (uint64);
    function getOffer(address _providerAddr) external view returns (bool valid, ProviderPrices memory prices);
    function isBanned(address _providerAddr) external view returns (bool);
    function isValidForScheduling(address _providerAddr) external view returns (bool);
    function isWaitingForApproval(address _providerAddr) external view returns (bool);
}
