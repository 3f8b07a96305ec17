// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Credit} from "../src/Credit.sol";
import {Faucet} from "../src/Faucet.sol";
import {FaucetCredit} from "../src/FaucetCredit.sol";
import {FaucetNative} from "../src/FaucetNative.sol";
import {Check} from "./utils/Vm.sol";

/// @notice Faucets give to whom the owner said, as much as it said, out of what they have.
contract FaucetsTest is Check {
    address private constant USER = address(0xC0575);
    address private constant OTHER = address(0xB2);

    Credit private credit;
    FaucetCredit private credits;
    FaucetNative private coins;

    function setUp() public {
        credit = new Credit(1000);
        credits = new FaucetCredit(IERC20(address(credit)));
        coins = new FaucetNative();
        vm.deal(address(this), 1000);
    }

    function _both() private view returns (Faucet[2] memory) {
        return [Faucet(credits), Faucet(coins)];
    }

    function _claim(Faucet faucet, address user) private {
        vm.prank(user);
        faucet.claim();
    }

    function test_EachTakesWhatItWasCredited() public {
        credit.transfer(address(credits), 100);
        expectEmit(address(coins));
        emit FaucetNative.Received(address(this), 100);
        payable(address(coins)).transfer(100);
        Faucet[2] memory both = _both();
        for (uint256 i = 0; i < 2; i++) {
            Faucet faucet = both[i];
            faucet.creditUser(USER, 30);
            faucet.creditUser(USER, 10);
            same(faucet.addressToUserCredit(USER), 40, "credited");
            _claim(faucet, USER);
            same(faucet.addressToUserCredit(USER), 0, "nothing left");
            faucet.creditUser(USER, 5);
            _claim(faucet, USER);
            same(faucet.addressToAmountDistributed(USER), 45, "distributed to the user");
            same(faucet.totalDistributed(), 45, "distributed");
        }
        same(credit.balanceOf(USER), 45, "credits");
        same(USER.balance, 45, "coins");
        same(coins.totalCredited(), 45, "credited in all");
    }

    function test_NothingIsLeftToClaim() public {
        Faucet[2] memory both = _both();
        for (uint256 i = 0; i < 2; i++) {
            vm.expectRevert(abi.encodeWithSelector(Faucet.NothingToClaim.selector));
            _claim(both[i], USER);
        }
    }

    /// @notice A faucet that is dry loses nobody's credit.
    function test_ADryFaucet() public {
        Faucet[2] memory both = _both();
        bytes[2] memory dry = [
            abi.encodeWithSignature("ERC20InsufficientBalance(address,uint256,uint256)", address(credits), 0, 40),
            abi.encodeWithSignature("InsufficientBalance(uint256,uint256)", 0, 40)
        ];
        for (uint256 i = 0; i < 2; i++) {
            both[i].creditUser(USER, 40);
            vm.expectRevert(dry[i]);
            _claim(both[i], USER);
            same(both[i].addressToUserCredit(USER), 40, "still credited");
        }
    }

    function test_OnlyTheOwnerCredits() public {
        Faucet[2] memory both = _both();
        for (uint256 i = 0; i < 2; i++) {
            vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", USER));
            vm.prank(USER);
            both[i].creditUser(USER, 1);
        }
    }

    function test_UsersAreListedOnce() public {
        coins.creditUser(USER, 1);
        coins.creditUser(OTHER, 1);
        coins.creditUser(USER, 1);
        same(coins.users(0), USER, "the first");
        same(coins.users(1), OTHER, "the second");
        same(coins.users(2), address(0), "nobody");
    }

    /// @notice A user that is a contract and calls again from its receipt gets no more.
    function test_AUserThatCallsAgain() public {
        payable(address(coins)).transfer(100);
        Greedy greedy = new Greedy(coins);
        coins.creditUser(address(greedy), 10);
        greedy.claim();
        same(address(greedy).balance, 10, "once");
    }
}

/// @notice Claims again whenever it gets something.
contract Greedy {
    FaucetNative private faucet;

    constructor(FaucetNative faucet_) {
        faucet = faucet_;
    }

    function claim() external {
        faucet.claim();
    }

    receive() external payable {
        try faucet.claim() {} catch {}
    }
}
