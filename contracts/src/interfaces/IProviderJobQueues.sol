// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {QueueKind} from "../Types.sol";

/// @title What the market needs of the providers' queues
interface IProviderJobQueues {
    function pushClaimableJob(address _providerAddr, bytes32 _jobId) external;
    function popNextClaimableJob(address _providerAddr) external returns (bytes32 jobId);
    function pushCancellingJob(address _providerAddr, bytes32 _jobId) external;
    function popNextCancellingJob(address _providerAddr) external returns (bytes32 jobId);
    function pushTopUpJob(address _providerAddr, bytes32 _jobId) external;
    function popNextTopUpJob(address _providerAddr) external returns (bytes32 jobId);
    function push(address _providerAddr, QueueKind kind, bytes32 _jobId, uint16 assignments) external;
    function pop(address _providerAddr, QueueKind kind, uint256 count) external returns (bytes32[] memory jobIds);
    function drop(address _providerAddr, QueueKind kind) external;

    function hasNextClaimableJob(address _providerAddr) external view returns (bool);
    function hasCancellingJob(address _providerAddr) external view returns (bool);
    function hasTopUpJob(address _providerAddr) external view returns (bool);
    function getClaimableJobQueueSize(address _providerAddr) external view returns (uint256 length);
    function getCancellingJobQueueSize(address _providerAddr) external view returns (uint256 length);
    function getTopUpJobQueueSize(address _providerAddr) external view returns (uint256 length);
}
