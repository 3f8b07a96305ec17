// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketCore} from "../src/MarketCore.sol";
import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice An allowance by a signature (EIP-2612) in the purchase itself.
contract PermitTest is MarketTest {
    uint256 private constant PRIVATE_KEY = 0xC0FFEE;

    struct Signature {
        uint256 value;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    address private signer;

    function setUp() public override {
        super.setUp();
        signer = vm.addr(PRIVATE_KEY);
        credit.mint(signer, 10 * LOCKED);
    }

    function _sign(uint256 privateKey, address spender, uint256 value, uint256 deadline)
        private
        view
        returns (Signature memory signature)
    {
        bytes32 message = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                signer,
                spender,
                value,
                credit.nonces(signer),
                deadline
            )
        );
        (signature.value, signature.deadline) = (value, deadline);
        (signature.v, signature.r, signature.s) =
            vm.sign(privateKey, keccak256(abi.encodePacked(hex"1901", credit.DOMAIN_SEPARATOR(), message)));
    }

    function _sign(uint256 value) private view returns (Signature memory) {
        return _sign(PRIVATE_KEY, address(market), value, _now());
    }

    function _buy(Signature memory signature, bytes32 key) private returns (bytes32) {
        return _send(signature, key)[0];
    }

    function _send(Signature memory signature, bytes32 key) private returns (bytes32[] memory) {
        JobRequest[] memory orders = new JobRequest[](1);
        orders[0] = JobRequest(_definition(), LOCKED, "job", false, type(uint256).max, key);
        vm.prank(signer);
        return market.requestNewJobsWithPermit(
            orders, signature.value, signature.deadline, signature.v, signature.r, signature.s
        );
    }

    function _expectNothingAllowed() private {
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InsufficientFunds.selector, 0, LOCKED));
    }

    function test_AReplayFallsBackToTheAllowance() public {
        Signature memory signature = _sign(2 * LOCKED);
        _buy(signature, 0);
        _buy(signature, 0);
        same(credit.allowance(signer, address(market)), 0, "allowance");
        same(jobs.jobIdCounter(), 2, "jobs");
    }

    function test_AnExpiredOneFallsBackToTheAllowance() public {
        Signature memory signature = _sign(LOCKED);
        _pass(1);
        vm.prank(signer);
        credit.approve(address(market), LOCKED);
        _buy(signature, 0);
        same(credit.nonces(signer), 0, "not used");
    }

    function test_AnothersSignatureAllowsNothing() public {
        Signature memory signature = _sign(PRIVATE_KEY + 1, address(market), LOCKED, _now());
        _expectNothingAllowed();
        _send(signature, 0);
        signature = _sign(PRIVATE_KEY, STRANGER, LOCKED, _now());
        _expectNothingAllowed();
        _send(signature, 0);
    }

    /// @notice A stranger cannot spend what the signer allowed.
    function test_AStrangerWithTheSignature() public {
        Signature memory signature = _sign(LOCKED);
        JobRequest[] memory orders = new JobRequest[](1);
        orders[0] = JobRequest(_definition(), LOCKED, "job", false, 0, 0);
        _expectNothingAllowed();
        vm.prank(STRANGER);
        market.requestNewJobsWithPermit(
            orders, signature.value, signature.deadline, signature.v, signature.r, signature.s
        );
        same(credit.balanceOf(signer), 10 * LOCKED, "untouched");
    }

    function test_AKnownKeyNeedsNoSignature() public {
        bytes32 id = _buy(_sign(LOCKED), "key");
        Signature memory none;
        same(_buy(none, "key"), id, "the same job");
    }

    function test_WithPermitWhenClosed() public {
        market.setEnableRequestNewJob(false);
        Signature memory signature = _sign(LOCKED);
        vm.expectRevert(abi.encodeWithSelector(MarketCore.NewJobRequestDisabled.selector));
        _send(signature, 0);
        same(credit.nonces(signer), 0, "the signature can be used again");
    }
}
