// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// @title What both faucets of a test network have in common
/// @notice The owner says who may have how much; each takes its own. Whoever funds the faucet gives it away.
abstract contract Faucet is Ownable2Step {
    /// @notice The caller has nothing to take.
    error NothingToClaim();

    /// @notice What each user may still take.
    mapping(address => uint256) public addressToUserCredit;
    /// @notice What each user has taken.
    mapping(address => uint256) public addressToAmountDistributed;
    /// @notice What all users have taken.
    uint256 public totalDistributed;

    constructor() Ownable(msg.sender) {}

    /// @notice Lets a user take so much more.
    function creditUser(address userAddr, uint256 creditAmount) external onlyOwner {
        addressToUserCredit[userAddr] += creditAmount;
        _credited(userAddr, creditAmount);
    }

    /// @notice The caller takes all that it may.
    function claim() external {
        uint256 amount = addressToUserCredit[msg.sender];
        if (amount == 0) revert NothingToClaim();
        addressToUserCredit[msg.sender] = 0;
        addressToAmountDistributed[msg.sender] += amount;
        totalDistributed += amount;
        _give(msg.sender, amount);
    }

    /// @dev Called after a user was credited.
    function _credited(address user, uint256 amount) internal virtual {}

    /// @dev Hands it out, or reverts.
    function _give(address user, uint256 amount) internal virtual;
}
