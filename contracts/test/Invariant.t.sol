// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Handler} from "./utils/Handler.sol";
import {Check} from "./utils/Vm.sol";

/// @notice What holds at any time, whatever customers, providers, the meta-scheduler, operators, the admin and an
/// attacker do. The numbers are those of the table in README.md; the fifth is in Scale.t.sol.
contract InvariantTest is Check {
    Handler private handler;
    address[] private targets;

    /// @dev As forge has it.
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function setUp() public {
        handler = new Handler();
        targets.push(address(handler));
    }

    function targetContracts() external view returns (address[] memory) {
        return targets;
    }

    /// @notice What is not a step: it is for the end.
    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), new bytes4[](1));
        excluded[0].selectors[0] = handler.drain.selector;
    }

    function _holds(uint256 number) private view {
        string memory breach = handler.breach(number);
        same(bytes(breach), "", "what was seen");
    }

    /// @notice 1. The market owns what hot jobs have locked and its undrawn share, and nothing appears or is lost.
    function invariant_1_Conservation() public view {
        handler.checkConservation();
    }

    /// @notice 2. Everybody owns to the wei what the bills say: each job billed once, within its bounds, the rest
    /// refunded.
    function invariant_2_BillsAndRefunds() public view {
        _holds(2);
        handler.checkBills();
    }

    /// @notice 3. Only allowed changes of status; what has ended stays as it is.
    function invariant_3_StatusesAndColdIsFinal() public view {
        _holds(3);
        handler.checkColdIsFinal();
    }

    /// @notice 3. A job is at most once in each queue, and what is announced can be taken.
    function invariant_3_Queues() public view {
        handler.checkQueues();
    }

    /// @notice 4. Nobody but the named role acts; a banned provider gets nothing new; prices are fixed at the
    /// assignment.
    function invariant_4_Roles() public view {
        _holds(4);
    }

    /// @notice 6. Nobody computes for free, and nobody busies a provider with nothing.
    function invariant_6_NothingIsFree() public view {
        _holds(6);
    }

    /// @notice 7. The delegate stays within authority, slice, cap and allowance.
    function invariant_7_Delegate() public view {
        _holds(7);
    }

    /// @notice All of them after each step: for a long run, in which each is to see each step.
    function invariant_All() public view {
        for (uint256 number = 2; number <= 7; number++) {
            _holds(number);
        }
        handler.checkConservation();
        handler.checkBills();
        handler.checkColdIsFinal();
        handler.checkQueues();
    }

    /// @notice 3. No queue is jammed at the end of any sequence.
    function afterInvariant() public {
        handler.drain();
    }
}
