// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DEFINITION_WORDS, DefinitionCodec} from "../src/libraries/DefinitionCodec.sol";
import {MarketCore} from "../src/MarketCore.sol";
import {MarketTest} from "./utils/Market.sol";
import {Check} from "./utils/Vm.sol";
import "../src/Types.sol";

/// @notice The codec with a place in storage.
contract Store {
    bytes32[DEFINITION_WORDS] private words;

    function pack(bytes32 name, JobDefinition calldata definition) external pure returns (bytes memory) {
        return DefinitionCodec.pack(name, definition);
    }

    function unpack(bytes calldata packed) external pure returns (bytes32, JobDefinition memory) {
        return DefinitionCodec.unpack(packed);
    }

    function encode(bytes calldata packed) external pure returns (bytes32, bytes memory) {
        return DefinitionCodec.encode(packed);
    }

    function rename(bytes calldata packed, bytes32 name) external pure returns (bytes memory) {
        return DefinitionCodec.rename(packed, name);
    }

    function save(bytes calldata packed) external {
        DefinitionCodec.save(words, packed);
    }

    function load() external view returns (bytes memory) {
        return DefinitionCodec.load(words);
    }

    function loadNumbers() external view returns (uint64, uint64, uint64, uint64) {
        return DefinitionCodec.loadNumbers(words);
    }

    function usedWords() external view returns (uint256 count) {
        for (uint256 i = 0; i < DEFINITION_WORDS; i++) {
            if (words[i] != 0) count++;
        }
    }
}

/// @notice What goes into few bytes comes out as it was.
contract CodecTest is Check {
    Store private store;

    function setUp() public {
        store = new Store();
    }

    /// @dev A text of some length, whose bytes depend on the seed.
    function _text(uint256 seed, uint256 length) private pure returns (string memory) {
        bytes memory text = new bytes(length);
        for (uint256 i = 0; i < length; i++) {
            text[i] = bytes1(uint8(uint256(keccak256(abi.encode(seed, i)))));
        }
        return string(text);
    }

    function _label(uint256 seed, uint256 most) private pure returns (Label memory) {
        return Label(_text(seed, seed % (most + 1)), _text(seed >> 8, (seed >> 8) % (most + 1)));
    }

    /// @dev A definition of any form, of texts that all fit together.
    function _any(uint64[4] memory numbers, uint256 seed) private pure returns (JobDefinition memory definition) {
        (definition.gpus, definition.memPerCpu) = (numbers[0], numbers[1]);
        (definition.cpusPerTask, definition.ntasks) = (numbers[2], numbers[3]);
        definition.storageType = uint8(seed % 5);
        definition.batchLocationHash = _text(seed, seed % 200);
        definition.uses = new Label[]((seed >> 16) % 33);
        definition.affinity = new Affinity[]((seed >> 24) % 32);
        for (uint256 i = 0; i < definition.uses.length; i++) {
            definition.uses[i] = _label(uint256(keccak256(abi.encode(seed, "use", i))), 12);
        }
        for (uint256 i = 0; i < definition.affinity.length; i++) {
            uint256 one = uint256(keccak256(abi.encode(seed, "affinity", i)));
            definition.affinity[i] = Affinity(_label(one, 12), bytes2(uint16(one >> 32)));
        }
    }

    function testFuzz_RoundTrip(bytes32 name, uint64[4] memory numbers, uint256 seed) public {
        JobDefinition memory definition = _any(numbers, seed);
        bytes memory packed = store.pack(name, definition);
        yes(packed.length <= DefinitionCodec.MAX_BYTES, "fits");
        (bytes32 sameName, JobDefinition memory back) = store.unpack(packed);
        same(sameName, name, "name");
        same(abi.encode(back), abi.encode(definition), "definition");
        (, bytes memory encoded) = store.encode(packed);
        same(encoded, abi.encode(definition), "as abi.encode gives it, to the byte");

        store.save(packed);
        same(store.load(), packed, "stored");
        (uint64 gpus, uint64 mem, uint64 cpus, uint64 tasks) = store.loadNumbers();
        same(abi.encode(gpus, mem, cpus, tasks), abi.encode(numbers), "numbers");
    }

    function testFuzz_RenameChangesTheNameAlone(bytes32 name, bytes32 other, uint64[4] memory numbers, uint256 seed)
        public
        view
    {
        JobDefinition memory definition = _any(numbers, seed);
        same(store.rename(store.pack(name, definition), other), store.pack(other, definition), "renamed");
    }

    /// @notice Over an older one that was longer, nothing of it shows.
    function testFuzz_SaveOverAnother(uint64[4] memory numbers, uint256 older, uint256 newer) public {
        store.save(store.pack("older", _any(numbers, older)));
        bytes memory packed = store.pack("newer", _any(numbers, newer));
        store.save(packed);
        same(store.load(), packed, "the newer one");
    }

    function test_TheSmallestAndTheLargestNumbers() public {
        uint64 top = type(uint64).max;
        uint64[4][2] memory ends = [[uint64(0), 0, 0, 0], [top, top, top, top]];
        for (uint256 i = 0; i < 2; i++) {
            store.save(store.pack(bytes32(type(uint256).max), _any(ends[i], 0)));
            (uint64 gpus, uint64 mem, uint64 cpus, uint64 tasks) = store.loadNumbers();
            same(abi.encode(gpus, mem, cpus, tasks), abi.encode(ends[i]), "numbers");
        }
    }

    /// @notice A purchase pays for each word.
    function test_UsualDefinitionsTakeAWord() public {
        JobDefinition memory definition;
        (definition.gpus, definition.memPerCpu, definition.cpusPerTask, definition.ntasks) = (4, 16_000, 8, 100);
        definition.storageType = uint8(StorageType.NONE);
        definition.batchLocationHash = "0123456789abcdef";
        store.save(store.pack("6bytes", definition));
        same(store.usedWords(), 1, "words");

        definition.batchLocationHash = "u3LX9nkPg";
        definition.uses = new Label[](1);
        definition.uses[0] = Label("os", "linux");
        store.save(store.pack("job", definition));
        same(store.usedWords(), 1, "words with a label");
    }
}

/// @notice What may be bought.
contract BoundsTest is MarketTest {
    function _refused(JobDefinition memory definition) private {
        vm.expectRevert(abi.encodeWithSelector(MarketCore.InvalidJobDefinition.selector));
        vm.prank(CUSTOMER);
        market.requestNewJob(definition, LOCKED, "", false);
    }

    function test_LabelsAreFew() public {
        JobDefinition memory definition = _definition();
        definition.uses = new Label[](DefinitionCodec.MAX_LABELS);
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, LOCKED, "", false);
        same(abi.encode(jobs.get(id).definition), abi.encode(definition), "as many as may be");

        definition.affinity = new Affinity[](1);
        _refused(definition);
    }

    function test_BytesAreFew() public {
        JobDefinition memory definition = _definition();
        // 2 bytes of length, 4 of numbers, a name of none, 2 of the text's length, 1 of counts.
        definition.batchLocationHash = string(new bytes(DefinitionCodec.MAX_BYTES - 10));
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(definition, LOCKED, "", false);
        same(abi.encode(jobs.get(id).definition), abi.encode(definition), "as long as may be");

        definition.batchLocationHash = string(new bytes(DefinitionCodec.MAX_BYTES - 9));
        _refused(definition);
    }

    /// @notice Go clients cannot read a revert without data.
    function test_AnUnknownStorageTypeHasItsReason() public {
        JobDefinition memory definition = _definition();
        definition.storageType = uint8(type(StorageType).max) + 1;
        _refused(definition);
    }

    function test_AnUnknownStatusHasItsReason() public {
        bytes32 id = _job(JobStatus.RUNNING);
        vm.expectRevert(abi.encodeWithSelector(OutOfRange.selector, 9, 0, 8));
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, 9, 1, "", 0);
    }
}
