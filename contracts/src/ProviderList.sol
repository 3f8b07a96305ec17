// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The joined providers as a doubly linked list that clients read in pages
/// @notice An object's data is the provider's address, left-padded. Ids are a counter from 1, and 0 means none.
abstract contract ProviderList {
    event ObjectCreated(uint256 id, bytes32 data);
    event ObjectRemoved(uint256 id);
    event ObjectsLinked(uint256 prev, uint256 next);
    event NewHead(uint256 id);
    event NewTail(uint256 id);

    struct Object {
        uint256 id;
        uint256 next;
        uint256 prev;
        bytes32 data;
    }

    // ---------------------------------------------------------------------------------------------------------- state

    uint256 public head;
    uint256 public tail;
    /// @notice The latest id given.
    uint256 public idCounter;
    uint256 public elementCount;
    mapping(uint256 => Object) public objects;

    mapping(address provider => uint256 id) private _idOf;

    // ---------------------------------------------------------------------------------------------------------- reads

    /// @notice An object's id, next, previous and data; zeros for an unknown id.
    function get(uint256 _id) external view returns (uint256, uint256, uint256, bytes32) {
        Object storage object = objects[_id];
        return (object.id, object.next, object.prev, object.data);
    }

    /// @notice Up to `howMany` data from the object `cursor` on, or from the head where `cursor` is 0.
    /// @return data The data, `actualLength` of them.
    /// @return actualLength How many there are.
    /// @return newCursor Where the next page begins; 0 when there is none.
    function fetchPage(uint256 cursor, uint256 howMany)
        external
        view
        returns (bytes32[] memory data, uint256 actualLength, uint256 newCursor)
    {
        (data, newCursor) = _page(cursor, howMany);
        actualLength = data.length;
    }

    /// @notice The id of the first object with this data from the object `_from` on, or from the head where `_from` is
    /// 0; 0 if there is none.
    function findIdForDataFrom(bytes32 _hash, uint256 _from) external view returns (uint256) {
        uint256 id = _from == 0 ? head : objects[_from].id;
        while (id != 0 && objects[id].data != _hash) {
            id = objects[id].next;
        }
        return id;
    }

    function _page(uint256 cursor, uint256 howMany) internal view returns (bytes32[] memory data, uint256 next) {
        next = cursor == 0 ? head : objects[cursor].id;
        data = new bytes32[](howMany < elementCount ? howMany : elementCount);
        uint256 length;
        for (; next != 0 && length < data.length; length++) {
            data[length] = objects[next].data;
            next = objects[next].next;
        }
        assembly ("memory-safe") {
            mstore(data, length)
        }
    }

    // --------------------------------------------------------------------------------------------------------- writes

    function _append(address provider) internal {
        uint256 id = ++idCounter;
        bytes32 data = bytes32(uint256(uint160(provider)));
        uint256 last = tail;
        objects[id] = Object({id: id, next: 0, prev: last, data: data});
        _idOf[provider] = id;
        elementCount++;
        emit ObjectCreated(id, data);
        _link(last, id);
        _link(id, 0);
    }

    function _drop(address provider) internal {
        uint256 id = _idOf[provider];
        _link(objects[id].prev, objects[id].next);
        delete objects[id];
        delete _idOf[provider];
        elementCount--;
        emit ObjectRemoved(id);
    }

    /// @dev Nothing before makes a head, nothing after makes a tail.
    function _link(uint256 prev, uint256 next) private {
        if (prev == 0) {
            head = next;
            emit NewHead(next);
        } else {
            objects[prev].next = next;
        }
        if (next == 0) {
            tail = prev;
            emit NewTail(prev);
        } else {
            objects[next].prev = prev;
        }
        if (prev != 0 && next != 0) emit ObjectsLinked(prev, next);
    }
}
