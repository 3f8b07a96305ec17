// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {JobDefinition, Label} from "../Types.sol";

/// @dev The most words of a packed definition: providers pay for its claim, and everybody reads it.
uint256 constant DEFINITION_WORDS = 64;

/// @title A job's name and definition in few bytes
/// @notice A purchase pays most for storage: a usual definition takes a word or two. The packed form:
///
///     2 bytes     how many bytes follow
///     numbers     gpus * 8 + storageType, memPerCpu, cpusPerTask, ntasks
///     texts       jobName without the zeros at its end, batchLocationHash
///     number      affinities * 128 + uses
///     uses        each: text key, text value
///     affinities  each: text key, text value, 2 bytes op
///
/// A number is LEB128: seven bits a byte, the lowest first, and the highest bit says that more follow. A text is a
/// number of bytes, and the bytes. Zeros fill up the last word.
library DefinitionCodec {
    /// @notice The most bytes of a packed form.
    uint256 internal constant MAX_BYTES = 32 * DEFINITION_WORDS;
    /// @notice The most uses and affinities together: each is six words of an event, however short.
    uint256 internal constant MAX_LABELS = 64;

    uint256 private constant NUMBERS = 4;
    uint256 private constant STORAGE_BITS = 3;
    uint256 private constant USES_BITS = 7;
    uint256 private constant LENGTH_BYTES = 2;
    /// @dev The numbers end within two words: each has at most ten bytes.
    uint256 private constant HEAD_WORDS = 2;

    // ----------------------------------------------------------------------------------------------------------- pack

    /// @notice The packed form of a job with at most MAX_LABELS, whose storageType is one; meaningless if it is longer
    /// than MAX_BYTES.
    /// @dev Written where free memory begins, so nothing in between may allocate: `_put...` only write at an address.
    function pack(bytes32 jobName, JobDefinition calldata definition) internal pure returns (bytes memory packed) {
        uint256 to = _begin();
        to = _putNumber(to, uint256(definition.gpus) << STORAGE_BITS | definition.storageType);
        to = _putNumber(to, definition.memPerCpu);
        to = _putNumber(to, definition.cpusPerTask);
        to = _putNumber(to, definition.ntasks);
        to = _putName(to, jobName);
        to = _putText(to, definition.batchLocationHash);
        to = _putNumber(to, definition.affinity.length << USES_BITS | definition.uses.length);
        for (uint256 i = 0; i < definition.uses.length; i++) {
            to = _putLabel(to, definition.uses[i]);
        }
        for (uint256 i = 0; i < definition.affinity.length; i++) {
            to = _putLabel(to, definition.affinity[i].label);
            bytes2 op = definition.affinity[i].op;
            assembly ("memory-safe") {
                mstore(to, op)
                to := add(to, 2)
            }
        }
        return _finish(to);
    }

    /// @notice A packed form under another name.
    function rename(bytes memory packed, bytes32 jobName) internal pure returns (bytes memory) {
        uint256 first = _firstByte(packed);
        uint256 name = first;
        for (uint256 i = 0; i < NUMBERS; i++) {
            (, name) = _getNumber(name);
        }
        (, uint256 afterName) = _getName(name);

        uint256 to = _begin();
        to = _putBytes(to, first, name - first);
        to = _putName(to, jobName);
        return _finish(_putBytes(to, afterName, first + packed.length - LENGTH_BYTES - afterName));
    }

    /// @dev The address of the first byte after the length.
    function _begin() private pure returns (uint256 to) {
        assembly ("memory-safe") {
            to := add(mload(0x40), 34)
        }
    }

    /// @dev Allocates what was written since `_begin` up to this address, with the lengths in front.
    function _finish(uint256 to) private pure returns (bytes memory packed) {
        assembly ("memory-safe") {
            packed := mload(0x40)
            let length := sub(to, add(packed, 32))
            mstore(0x40, and(add(to, 31), not(31)))
            // The second length ends where the first byte begins; the first one overwrites what it has in front.
            mstore(add(packed, 2), sub(length, 2))
            mstore(packed, length)
        }
    }

    function _putLabel(uint256 to, Label calldata label) private pure returns (uint256) {
        return _putText(_putText(to, label.key), label.value);
    }

    function _putText(uint256 to, string calldata text) private pure returns (uint256) {
        to = _putNumber(to, bytes(text).length);
        assembly ("memory-safe") {
            calldatacopy(to, text.offset, text.length)
            to := add(to, text.length)
        }
        return to;
    }

    function _putBytes(uint256 to, uint256 from, uint256 length) private pure returns (uint256) {
        assembly ("memory-safe") {
            mcopy(to, from, length)
        }
        return to + length;
    }

    function _putName(uint256 to, bytes32 name) private pure returns (uint256) {
        uint256 length = 0;
        while (uint256(name) << 8 * length != 0) length++;
        to = _putNumber(to, length);
        assembly ("memory-safe") {
            mstore(to, name)
            to := add(to, length)
        }
        return to;
    }

    function _putNumber(uint256 to, uint256 value) private pure returns (uint256) {
        assembly ("memory-safe") {
            for {} gt(value, 0x7f) { value := shr(7, value) } {
                mstore8(to, or(value, 0x80))
                to := add(to, 1)
            }
            mstore8(to, value)
            to := add(to, 1)
        }
        return to;
    }

    // --------------------------------------------------------------------------------------------------------- unpack

    /// @notice The name and the definition of a packed form.
    function unpack(bytes memory packed) internal pure returns (bytes32 jobName, JobDefinition memory definition) {
        bytes memory encoded;
        (jobName, encoded) = encode(packed);
        definition = abi.decode(encoded, (JobDefinition));
    }

    /// @notice The name of a packed form, and its definition as abi.encode gives it.
    /// @dev Written where free memory begins, as `pack`. Offsets count from the beginning of what they are part of.
    function encode(bytes memory packed) internal pure returns (bytes32 jobName, bytes memory encoded) {
        uint256 head;
        assembly ("memory-safe") {
            encoded := mload(0x40)
            mstore(add(encoded, 32), 32)
            head := add(encoded, 64)
        }
        uint256 from = _firstByte(packed);
        uint256 value;
        (value, from) = _getNumber(from);
        _putWord(head, value >> STORAGE_BITS);
        _putWord(head + 5 * 32, value & ((1 << STORAGE_BITS) - 1));
        for (uint256 i = 1; i < NUMBERS; i++) {
            (value, from) = _getNumber(from);
            _putWord(head + i * 32, value);
        }
        (jobName, from) = _getName(from);

        uint256 to = head + 8 * 32;
        _putWord(head + 4 * 32, to - head);
        (from, to) = _encodeText(from, to);
        (value, from) = _getNumber(from);
        _putWord(head + 6 * 32, to - head);
        (from, to) = _encodeLabels(from, to, value & ((1 << USES_BITS) - 1), false);
        _putWord(head + 7 * 32, to - head);
        (from, to) = _encodeLabels(from, to, value >> USES_BITS, true);
        assembly ("memory-safe") {
            mstore(encoded, sub(to, add(encoded, 32)))
            mstore(0x40, to)
        }
    }

    /// @dev An array of labels, or of affinities: labels with an op.
    function _encodeLabels(uint256 from, uint256 to, uint256 count, bool withOp)
        private
        pure
        returns (uint256, uint256)
    {
        _putWord(to, count);
        uint256 offsets = to + 32;
        to = offsets + count * 32;
        for (uint256 i = 0; i < count; i++) {
            _putWord(offsets + i * 32, to - offsets);
            uint256 start = to;
            if (withOp) {
                _putWord(to, 2 * 32);
                to += 2 * 32;
            }
            (from, to) = _encodeLabel(from, to);
            if (withOp) {
                _putWord(start + 32, uint256(_getBytes(from, 2)));
                from += 2;
            }
        }
        return (from, to);
    }

    function _encodeLabel(uint256 from, uint256 to) private pure returns (uint256, uint256) {
        uint256 start = to;
        _putWord(start, 2 * 32);
        (from, to) = _encodeText(from, start + 2 * 32);
        _putWord(start + 32, to - start);
        return _encodeText(from, to);
    }

    function _encodeText(uint256 from, uint256 to) private pure returns (uint256, uint256) {
        uint256 length;
        (length, from) = _getNumber(from);
        _putWord(to, length);
        uint256 words = Math.ceilDiv(length, 32) * 32;
        // The last word's filling first.
        if (words != 0) _putWord(to + words, 0);
        assembly ("memory-safe") {
            mcopy(add(to, 32), from, length)
        }
        return (from + length, to + 32 + words);
    }

    function _putWord(uint256 to, uint256 word) private pure {
        assembly ("memory-safe") {
            mstore(to, word)
        }
    }

    /// @dev The address of the first byte after the length.
    function _firstByte(bytes memory packed) private pure returns (uint256 from) {
        assembly ("memory-safe") {
            from := add(packed, 34)
        }
    }

    function _getName(uint256 from) private pure returns (bytes32, uint256) {
        uint256 length;
        (length, from) = _getNumber(from);
        return (_getBytes(from, length), from + length);
    }

    function _getNumber(uint256 from) private pure returns (uint256 value, uint256) {
        assembly ("memory-safe") {
            for { let shift := 0 } 1 { shift := add(shift, 7) } {
                let digit := byte(0, mload(from))
                from := add(from, 1)
                value := or(value, shl(shift, and(digit, 0x7f)))
                if lt(digit, 0x80) { break }
            }
        }
        return (value, from);
    }

    /// @dev Some bytes, 32 at most, with zeros behind them.
    function _getBytes(uint256 from, uint256 length) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := and(mload(from), not(shr(shl(3, length), not(0))))
        }
    }

    // -------------------------------------------------------------------------------------------------------- storage

    /// @notice Writes a packed form of at most MAX_BYTES.
    function save(bytes32[DEFINITION_WORDS] storage words, bytes memory packed) internal {
        uint256 length = packed.length;
        uint256 from = _firstByte(packed) - LENGTH_BYTES;
        for (uint256 i = 0; 32 * i < length; i++) {
            words[i] = _getBytes(from + 32 * i, Math.min(length - 32 * i, 32));
        }
    }

    /// @notice Reads a packed form.
    function load(bytes32[DEFINITION_WORDS] storage words) internal view returns (bytes memory) {
        return _load(words, DEFINITION_WORDS);
    }

    /// @notice Reads the numbers of a packed form that a price depends on.
    function loadNumbers(bytes32[DEFINITION_WORDS] storage words)
        internal
        view
        returns (uint64 gpus, uint64 mem, uint64 cpus, uint64 tasks)
    {
        uint256[NUMBERS] memory numbers;
        uint256 from = _firstByte(_load(words, HEAD_WORDS));
        for (uint256 i = 0; i < NUMBERS; i++) {
            (numbers[i], from) = _getNumber(from);
        }
        gpus = uint64(numbers[0] >> STORAGE_BITS);
        (mem, cpus, tasks) = (uint64(numbers[1]), uint64(numbers[2]), uint64(numbers[3]));
    }

    /// @dev Reads at most so many words.
    function _load(bytes32[DEFINITION_WORDS] storage words, uint256 most) private view returns (bytes memory packed) {
        bytes32 word = words[0];
        uint256 length = (uint256(word) >> 240) + LENGTH_BYTES;
        uint256 count = Math.min(Math.ceilDiv(length, 32), most);
        packed = new bytes(32 * count);
        for (uint256 i = 0; i < count; i++) {
            if (i != 0) word = words[i];
            assembly ("memory-safe") {
                mstore(add(add(packed, 32), shl(5, i)), word)
            }
        }
        if (length < packed.length) {
            assembly ("memory-safe") {
                mstore(packed, length)
            }
        }
    }
}
