// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Faucet} from "./Faucet.sol";

/// @title A faucet of the chain's own coin, for test networks
/// @notice Gives out of the coins that were sent to it.
contract FaucetNative is Faucet {
    /// @notice Somebody funded the faucet.
    event Received(address, uint256);

    /// @notice What all users were allowed to take, ever.
    uint256 public totalCredited;
    /// @notice Those who were ever credited, once each.
    address[] private _users;
    mapping(address user => bool) private _known;

    receive() external payable {
        emit Received(msg.sender, msg.value);
    }

    /// @notice The users in the order of their first credit; zero beyond the last.
    function users(uint256 index) external view returns (address) {
        return index < _users.length ? _users[index] : address(0);
    }

    function _credited(address user, uint256 amount) internal override {
        totalCredited += amount;
        if (_known[user]) return;
        _known[user] = true;
        _users.push(user);
    }

    function _give(address user, uint256 amount) internal override {
        Address.sendValue(payable(user), amount);
    }
}
