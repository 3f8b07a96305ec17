// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @title The market's settings
/// @notice Anybody reads them; only the owner, who deployed the contract, changes them. A change applies from the next
/// transaction on.
contract Constants is Ownable {
    /// @notice A share of more than everything.
    error CutAboveHundredPercent(uint256 percent);

    /// @notice The least that a job must lock, in wei of credit.
    uint256 public minimumAmount = 1000;
    /// @notice The market's share of a bill, in percent from 0 to 100, rounded down in favour of the provider.
    uint256 public deepsquareCut = 10;
    /// @notice Minutes by which a bill may exceed the time that the chain saw: a provider's RUNNING can arrive late.
    uint256 public billDurationDeltaMinute = 5;
    /// @notice Minutes that a job cancelled while running costs at least.
    uint256 public cancellationFeeMinute = 1;
    /// @notice Seconds that a provider has to claim a job before anybody may send it back.
    uint64 public claimJobTimeout = 300;
    /// @notice Minutes that one delegated top-up buys, and below which it is allowed.
    uint64 public topUpSliceDurationMin = 60;

    constructor() Ownable(msg.sender) {}

    function setMinimumAmount(uint256 _minimumAmount) external onlyOwner {
        minimumAmount = _minimumAmount;
    }

    function setDeepsquareCut(uint256 _deepsquareCut) external onlyOwner {
        if (_deepsquareCut > 100) revert CutAboveHundredPercent(_deepsquareCut);
        deepsquareCut = _deepsquareCut;
    }

    function setBillDurationDeltaMinute(uint256 _billDurationDeltaMinute) external onlyOwner {
        billDurationDeltaMinute = _billDurationDeltaMinute;
    }

    function setCancellationFeeMinute(uint256 _cancellationFeeMinute) external onlyOwner {
        cancellationFeeMinute = _cancellationFeeMinute;
    }

    function setClaimJobTimeout(uint64 _claimJobTimeout) external onlyOwner {
        claimJobTimeout = _claimJobTimeout;
    }

    function setTopUpSliceDurationMin(uint64 _topUpSliceDurationMin) external onlyOwner {
        topUpSliceDurationMin = _topUpSliceDurationMin;
    }
}
