// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The cheat codes of forge that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function lastCallGas() external view returns (Gas memory gas);
    function prank(address sender) external;
    function getBlockTimestamp() external view returns (uint256);
    function warp(uint256 timestamp) external;
    function roll(uint256 blockNumber) external;
    function expectRevert(bytes calldata data) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data, address emitter) external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function addr(uint256 key) external pure returns (address);
    function deal(address account, uint256 wei_) external;
    function load(address account, bytes32 slot) external view returns (bytes32);
    function store(address account, bytes32 slot, bytes32 word) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function snapshotValue(string calldata group, string calldata name, uint256 value) external;
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256 gasUsed);
    function toString(uint256 value) external pure returns (string memory);
    function toString(bytes calldata value) external pure returns (string memory);
}

/// @notice Cheat codes and assertions.
abstract contract Check {
    Vm internal constant vm = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);

    error Failed(string what, string actual, string expected);

    function same(uint256 actual, uint256 expected, string memory what) internal pure {
        if (actual != expected) revert Failed(what, vm.toString(actual), vm.toString(expected));
    }

    function same(bytes32 actual, bytes32 expected, string memory what) internal pure {
        same(abi.encode(actual), abi.encode(expected), what);
    }

    function same(address actual, address expected, string memory what) internal pure {
        same(abi.encode(actual), abi.encode(expected), what);
    }

    function same(bytes memory actual, bytes memory expected, string memory what) internal pure {
        if (keccak256(actual) != keccak256(expected)) {
            revert Failed(what, vm.toString(actual), vm.toString(expected));
        }
    }

    function yes(bool actual, string memory what) internal pure {
        if (!actual) revert Failed(what, "false", "true");
    }

    function no(bool actual, string memory what) internal pure {
        if (actual) revert Failed(what, "true", "false");
    }

    /// @notice A fuzzed value brought into a range, ends included.
    function within(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }

    /// @notice How many of the recorded logs are of that event.
    function count(Vm.Log[] memory logs, bytes32 topic) internal pure returns (uint256 found) {
        for (uint256 i = 0; i < logs.length; i++) {
            if (logs[i].topics[0] == topic) found++;
        }
    }

    function expectEmit(address emitter) internal {
        vm.expectEmit(true, true, true, true, emitter);
    }
}
