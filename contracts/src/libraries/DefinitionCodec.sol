// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Affinity, JobDefinition, Label} from "../Types.sol";

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

    uint256 private constant STORAGE_BITS = 3;
    uint256 private constant USES_BITS = 7;
    uint256 private constant LENGTH_BYTES = 2;
    /// @dev The numbers end within two words: each has at most ten bytes.
    uint256 private constant HEAD_WORDS = 2;

    /// @dev A place in a packed form.
    struct Cursor {
        bytes packed;
        uint256 position;
    }

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
        Cursor memory cursor = Cursor(packed, LENGTH_BYTES);
        _numbers(cursor);
        uint256 nameFrom = cursor.position;
        _name(cursor);
        uint256 nameTo = cursor.position;

        uint256 to = _begin();
        to = _putBytes(to, packed, LENGTH_BYTES, nameFrom);
        to = _putName(to, jobName);
        return _finish(_putBytes(to, packed, nameTo, packed.length));
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

    function _putBytes(uint256 to, bytes memory from, uint256 begin, uint256 end) private pure returns (uint256) {
        assembly ("memory-safe") {
            mcopy(to, add(add(from, 32), begin), sub(end, begin))
            to := add(to, sub(end, begin))
        }
        return to;
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
        Cursor memory cursor = Cursor(packed, LENGTH_BYTES);
        (definition.gpus, definition.memPerCpu, definition.cpusPerTask, definition.ntasks, definition.storageType) =
            _numbers(cursor);
        jobName = _name(cursor);
        definition.batchLocationHash = _text(cursor);
        uint256 counts = _number(cursor);
        definition.uses = new Label[](counts & ((1 << USES_BITS) - 1));
        for (uint256 i = 0; i < definition.uses.length; i++) {
            definition.uses[i] = _label(cursor);
        }
        definition.affinity = new Affinity[](counts >> USES_BITS);
        for (uint256 i = 0; i < definition.affinity.length; i++) {
            definition.affinity[i] = Affinity(_label(cursor), bytes2(_bytes(cursor, 2)));
        }
    }

    function _numbers(Cursor memory cursor)
        private
        pure
        returns (uint64 gpus, uint64 mem, uint64 cpus, uint64 tasks, uint8 storageType)
    {
        uint256 first = _number(cursor);
        gpus = uint64(first >> STORAGE_BITS);
        storageType = uint8(first & ((1 << STORAGE_BITS) - 1));
        mem = uint64(_number(cursor));
        cpus = uint64(_number(cursor));
        tasks = uint64(_number(cursor));
    }

    function _label(Cursor memory cursor) private pure returns (Label memory) {
        string memory key = _text(cursor);
        return Label(key, _text(cursor));
    }

    function _name(Cursor memory cursor) private pure returns (bytes32) {
        return _bytes(cursor, _number(cursor));
    }

    function _text(Cursor memory cursor) private pure returns (string memory text) {
        uint256 length = _number(cursor);
        text = string(_slice(cursor.packed, cursor.position, cursor.position + length));
        cursor.position += length;
    }

    function _number(Cursor memory cursor) private pure returns (uint256 value) {
        bytes memory packed = cursor.packed;
        uint256 position = cursor.position;
        assembly ("memory-safe") {
            let from := add(add(packed, 1), position)
            for { let shift := 0 } 1 { shift := add(shift, 7) } {
                // The byte is the last of the 32 that are read.
                let digit := and(mload(from), 0xff)
                from := add(from, 1)
                value := or(value, shl(shift, and(digit, 0x7f)))
                if lt(digit, 0x80) { break }
            }
            position := sub(from, add(packed, 1))
        }
        cursor.position = position;
    }

    /// @dev The next bytes, 32 at most, with zeros behind them.
    function _bytes(Cursor memory cursor, uint256 length) private pure returns (bytes32 word) {
        word = _word(cursor.packed, cursor.position, length);
        cursor.position += length;
    }

    function _word(bytes memory packed, uint256 position, uint256 length) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := and(mload(add(add(packed, 32), position)), not(shr(shl(3, length), not(0))))
        }
    }

    function _slice(bytes memory packed, uint256 from, uint256 to) private pure returns (bytes memory slice) {
        slice = new bytes(to - from);
        assembly ("memory-safe") {
            mcopy(add(slice, 32), add(add(packed, 32), from), sub(to, from))
        }
    }

    // -------------------------------------------------------------------------------------------------------- storage

    /// @notice Writes a packed form of at most MAX_BYTES.
    function save(bytes32[DEFINITION_WORDS] storage words, bytes memory packed) internal {
        uint256 length = packed.length;
        for (uint256 i = 0; 32 * i < length; i++) {
            words[i] = _word(packed, 32 * i, Math.min(length - 32 * i, 32));
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
        Cursor memory cursor = Cursor(_load(words, HEAD_WORDS), LENGTH_BYTES);
        (gpus, mem, cpus, tasks,) = _numbers(cursor);
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
