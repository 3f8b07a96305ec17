// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {OutOfRange, Settings} from "./Types.sol";

/// @title The market's settings
/// @notice Anybody reads them; only the owner, who deployed the contract, changes them, within bounds that keep every
/// job endable and every bill near the time that the chain saw. A change applies from the next transaction on.
contract Constants is Ownable2Step {
    /// @notice A setting was changed.
    event SettingChanged(bytes32 indexed name, uint256 value);

    /// @notice The most minutes that the delta, the fee or a slice may be: a day, a day, 60 days.
    uint256 public constant MAX_DELTA_MINUTE = 1440;
    uint256 public constant MAX_FEE_MINUTE = 1440;
    uint256 public constant MAX_SLICE_MINUTE = 86_400;
    /// @notice The most seconds that a provider may have to claim a job: a week.
    uint256 public constant MAX_CLAIM_TIMEOUT = 604_800;

    /// @dev One word: a bill reads them all at the price of one.
    Settings private _settings = Settings({
        minimumAmount: 1000,
        deepsquareCut: 10,
        billDurationDeltaMinute: 5,
        cancellationFeeMinute: 1,
        claimJobTimeout: 300,
        topUpSliceDurationMin: 60
    });

    constructor() Ownable(msg.sender) {}

    // ---------------------------------------------------------------------------------------------------------- reads

    /// @notice All settings at once.
    function all() external view returns (Settings memory) {
        return _settings;
    }

    /// @notice The least that a job must lock, in wei of credit.
    function minimumAmount() external view returns (uint256) {
        return _settings.minimumAmount;
    }

    /// @notice The market's share of a bill, in percent from 0 to 100, rounded down in favour of the provider.
    function deepsquareCut() external view returns (uint256) {
        return _settings.deepsquareCut;
    }

    /// @notice Minutes by which a bill may exceed the time that the chain saw: a provider's RUNNING can arrive late.
    function billDurationDeltaMinute() external view returns (uint256) {
        return _settings.billDurationDeltaMinute;
    }

    /// @notice Minutes that a job cancelled while running costs at least.
    function cancellationFeeMinute() external view returns (uint256) {
        return _settings.cancellationFeeMinute;
    }

    /// @notice Seconds that a provider has to claim a job before anybody may send it back.
    function claimJobTimeout() external view returns (uint64) {
        return _settings.claimJobTimeout;
    }

    /// @notice Minutes that one delegated top-up buys, and below which it is allowed.
    function topUpSliceDurationMin() external view returns (uint64) {
        return _settings.topUpSliceDurationMin;
    }

    // --------------------------------------------------------------------------------------------------------- writes

    function setMinimumAmount(uint256 _minimumAmount) external onlyOwner {
        _settings.minimumAmount = uint96(_accepted("minimumAmount", _minimumAmount, 0, type(uint96).max));
    }

    function setDeepsquareCut(uint256 _deepsquareCut) external onlyOwner {
        _settings.deepsquareCut = uint8(_accepted("deepsquareCut", _deepsquareCut, 0, 100));
    }

    /// @notice At least a minute: it is also the time that a provider has to report the end of what used all its
    /// credits, before anybody may end it for nothing.
    function setBillDurationDeltaMinute(uint256 _billDurationDeltaMinute) external onlyOwner {
        _settings.billDurationDeltaMinute =
            uint32(_accepted("billDurationDeltaMinute", _billDurationDeltaMinute, 1, MAX_DELTA_MINUTE));
    }

    function setCancellationFeeMinute(uint256 _cancellationFeeMinute) external onlyOwner {
        _settings.cancellationFeeMinute =
            uint32(_accepted("cancellationFeeMinute", _cancellationFeeMinute, 0, MAX_FEE_MINUTE));
    }

    /// @notice At least a second: without any time, no provider could ever claim before somebody sent the job back.
    function setClaimJobTimeout(uint64 _claimJobTimeout) external onlyOwner {
        _settings.claimJobTimeout = uint32(_accepted("claimJobTimeout", _claimJobTimeout, 1, MAX_CLAIM_TIMEOUT));
    }

    function setTopUpSliceDurationMin(uint64 _topUpSliceDurationMin) external onlyOwner {
        _settings.topUpSliceDurationMin =
            uint32(_accepted("topUpSliceDurationMin", _topUpSliceDurationMin, 1, MAX_SLICE_MINUTE));
    }

    /// @dev The value, announced, which fits the setting's type if it is in range.
    function _accepted(bytes32 name, uint256 value, uint256 lowest, uint256 highest) private returns (uint256) {
        if (value < lowest || value > highest) revert OutOfRange(value, lowest, highest);
        emit SettingChanged(name, value);
        return value;
    }
}
