// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title The money of the market
/// @notice An ERC-20 token of 18 decimals. Customers allow the MetaScheduler to take what they lock for a job, by a
/// transaction (`approve`) or by a signature (`permit`, EIP-2612); the owner, who deployed the contract, mints.
contract Credit is ERC20Permit, Ownable2Step {
    /// @param _amountWei Given to the deployer.
    constructor(uint256 _amountWei)
        ERC20("DeepSquare Credit", "CREDIT")
        ERC20Permit("DeepSquare Credit")
        Ownable(msg.sender)
    {
        _mint(msg.sender, _amountWei);
    }

    /// @notice Makes new credits. Only the owner: it decides how many there are.
    function mint(address account, uint256 _amountWei) external onlyOwner {
        _mint(account, _amountWei);
    }

    /// @notice Lets `spender` take `addedValue` more, relative to what it may take at this moment.
    function increaseAllowance(address spender, uint256 addedValue) external returns (bool) {
        _approve(msg.sender, spender, allowance(msg.sender, spender) + addedValue);
        return true;
    }

    /// @notice Lets `spender` take `subtractedValue` less; reverts if it could not take that much.
    function decreaseAllowance(address spender, uint256 subtractedValue) external returns (bool) {
        uint256 current = allowance(msg.sender, spender);
        if (current < subtractedValue) revert ERC20InsufficientAllowance(spender, current, subtractedValue);
        // Cannot underflow: compared on the line above.
        unchecked {
            _approve(msg.sender, spender, current - subtractedValue);
        }
        return true;
    }
}
