// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {JobDefinition, JobStatus, ProviderPrices, StorageType} from "../Types.sol";
import {DefinitionCodec} from "./DefinitionCodec.sol";

/// @title The rules of a job: which status may follow which, and what its time costs
/// @notice Internal functions: compiled into the contracts that use them. `Tools` publishes them for clients.
library JobRules {
    /// @notice The job has that status already.
    error SameStatusError();
    /// @notice No job goes from the one to the other.
    error InvalidTransition(JobStatus from, JobStatus to);
    /// @notice The job has ended: its status is final.
    error JobHotStatusOnly(JobStatus current);
    /// @notice Only a job that is claimed or runs can be topped up.
    error RunningScheduledStatusOnly(JobStatus current);

    // ------------------------------------------------------------------------------------------------ status machine

    /// @notice Reverts unless a job may go from `current` to `next`.
    function checkNewJobStatus(JobStatus current, JobStatus next) internal pure {
        if (current == next) revert SameStatusError();
        if (isJobCold(current)) revert JobHotStatusOnly(current);
        if (!isAllowed(current, next)) revert InvalidTransition(current, next);
    }

    /// @notice Whether a job may go from `current` to `next`.
    function isAllowed(JobStatus current, JobStatus next) internal pure returns (bool) {
        return _successors(current) & _bit(next) != 0;
    }

    /// @notice Whether a job of that status can still change.
    function isJobHot(JobStatus status) internal pure returns (bool) {
        return status <= JobStatus.RUNNING;
    }

    /// @notice Whether a job of that status has ended.
    function isJobCold(JobStatus status) internal pure returns (bool) {
        return status > JobStatus.RUNNING;
    }

    /// @notice Whether credits can be added to a job of that status.
    function isTopable(JobStatus status) internal pure returns (bool) {
        return status == JobStatus.SCHEDULED || status == JobStatus.RUNNING;
    }

    // ----------------------------------------------------------------------------------------------------- definition

    /// @notice Whether a job can be bought: it needs tasks, CPUs, memory and a script, and must not be too large to be
    /// claimed. GPUs may be 0.
    /// @return valid Whether it can.
    /// @return packed The packed form of the name and the definition, where it can.
    function checkDefinition(bytes32 jobName, JobDefinition calldata definition)
        internal
        pure
        returns (bool valid, bytes memory packed)
    {
        valid = definition.ntasks != 0 && definition.cpusPerTask != 0 && definition.memPerCpu != 0
            && bytes(definition.batchLocationHash).length != 0 && definition.storageType <= uint8(type(StorageType).max)
            && definition.uses.length + definition.affinity.length <= DefinitionCodec.MAX_LABELS;
        if (!valid) return (false, "");
        packed = DefinitionCodec.pack(jobName, definition);
        valid = packed.length <= DefinitionCodec.MAX_BYTES;
    }

    // ---------------------------------------------------------------------------------------------------------- money

    /// @notice Wei of credit a minute. Saturates: an absurd price makes a job unaffordable, never un-endable.
    function costPerMinute(
        uint64 ntasks,
        uint64 cpusPerTask,
        uint64 memPerCpu,
        uint64 gpus,
        ProviderPrices memory prices
    ) internal pure returns (uint256) {
        uint256 cpus = uint256(ntasks) * cpusPerTask;
        uint256 cost = Math.saturatingMul(cpus, prices.cpuPricePerMin);
        cost = Math.saturatingAdd(cost, Math.saturatingMul(cpus * memPerCpu, prices.memPricePerMin));
        return Math.saturatingAdd(cost, Math.saturatingMul(gpus, prices.gpuPricePerMin));
    }

    /// @notice Whole minutes that `amount` buys. Where a minute is free: as many as the type holds.
    function minutesFor(uint256 amount, uint256 minuteCost) internal pure returns (uint64) {
        if (minuteCost == 0) return type(uint64).max;
        return uint64(Math.min(amount / minuteCost, type(uint64).max));
    }

    /// @notice What so many minutes cost; saturates.
    function costOf(uint256 durationMinute, uint256 minuteCost) internal pure returns (uint256) {
        return Math.saturatingMul(durationMinute, minuteCost);
    }

    /// @notice What so many seconds cost, rounded down in favour of the customer, at most what is locked.
    function bill(uint256 durationSecond, uint256 minuteCost, uint256 locked) internal pure returns (uint256) {
        return Math.min(Math.saturatingMul(durationSecond, minuteCost) / 1 minutes, locked);
    }

    /// @notice Whole minutes that the locked credits still buy; a minute that has begun is used.
    /// @param start When the job began to run, 0 if it has not.
    function remainingMinutes(uint256 locked, uint256 minuteCost, uint256 start) internal view returns (uint64) {
        uint64 total = minutesFor(locked, minuteCost);
        if (start == 0) return total;
        return uint64(Math.saturatingSub(total, startedMinutes(start)));
    }

    /// @notice Minutes since `start`, the one that is going on included.
    function startedMinutes(uint256 start) internal view returns (uint256) {
        return Math.ceilDiv(block.timestamp - start, 1 minutes);
    }

    // -------------------------------------------------------------------------------------------------------- private

    /// @dev A bit for each status that may follow; none follows a cold one.
    function _successors(JobStatus status) private pure returns (uint256) {
        if (isJobCold(status)) return 0;
        uint256 anyHot = _bit(JobStatus.CANCELLED) | _bit(JobStatus.PANICKED);
        if (status == JobStatus.PENDING) return anyHot | _bit(JobStatus.META_SCHEDULED);
        if (status == JobStatus.META_SCHEDULED) {
            return anyHot | _bit(JobStatus.PENDING) | _bit(JobStatus.SCHEDULED) | _bit(JobStatus.FAILED);
        }
        if (status == JobStatus.SCHEDULED) {
            return anyHot | _bit(JobStatus.PENDING) | _bit(JobStatus.RUNNING) | _bit(JobStatus.FAILED);
        }
        return anyHot | _bit(JobStatus.FINISHED) | _bit(JobStatus.FAILED) | _bit(JobStatus.OUT_OF_CREDITS);
    }

    function _bit(JobStatus status) private pure returns (uint256) {
        // forge-lint: disable-next-line(incorrect-shift)
        return 1 << uint8(status);
    }
}
