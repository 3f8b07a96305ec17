// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Faucet} from "./Faucet.sol";

/// @title A faucet of credits, for test networks
/// @notice Gives out of the credits that were sent to it.
contract FaucetCredit is Faucet {
    using SafeERC20 for IERC20;

    IERC20 public immutable credit;

    constructor(IERC20 _credit) {
        credit = _credit;
    }

    function _give(address user, uint256 amount) internal override {
        credit.safeTransfer(user, amount);
    }
}
