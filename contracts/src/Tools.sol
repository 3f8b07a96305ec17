// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobRules} from "./libraries/JobRules.sol";
import {Job, JobDefinition, JobStatus, ProviderPrices} from "./Types.sol";

/// @title The market's rules, for clients to ask
/// @notice Stateless; anybody may call. The market itself does not depend on a deployment of it: it compiles the same
/// rules in.
contract Tools {
    function checkNewJobStatus(JobStatus _currentJobStatus, JobStatus _nextJobStatus) external pure {
        JobRules.checkNewJobStatus(_currentJobStatus, _nextJobStatus);
    }

    function isJobHot(JobStatus _jobStatus) external pure returns (bool) {
        return JobRules.isJobHot(_jobStatus);
    }

    function isJobCold(JobStatus _jobStatus) external pure returns (bool) {
        return JobRules.isJobCold(_jobStatus);
    }

    function isDelegateTopable(JobStatus _jobStatus) external pure returns (bool) {
        return JobRules.isTopable(_jobStatus);
    }

    /// @notice Whether a job can be bought, whatever its name.
    function isJobDefinitionValid(JobDefinition calldata _jobDefinition) external pure returns (bool valid) {
        (valid,) = JobRules.checkDefinition(bytes32(type(uint256).max), _jobDefinition);
    }

    /// @notice Whole minutes that an amount buys.
    function convertCreditToDuration(
        JobDefinition memory jobDefinition,
        ProviderPrices memory providerPrices,
        uint256 amountLocked
    ) external pure returns (uint64) {
        return JobRules.minutesFor(amountLocked, _costPerMinute(jobDefinition, providerPrices));
    }

    /// @notice What so many minutes cost; saturates.
    function convertDurationToCredit(
        JobDefinition memory jobDefinition,
        ProviderPrices memory providerPrices,
        uint64 durationMinute
    ) external pure returns (uint256) {
        return JobRules.costOf(durationMinute, _costPerMinute(jobDefinition, providerPrices));
    }

    /// @notice Whole minutes that a job's credits still buy; none once it has ended.
    function getRemainingTime(Job memory job, ProviderPrices memory providerPrices) external view returns (uint64) {
        if (JobRules.isJobCold(job.status)) return 0;
        return
            JobRules.remainingMinutes(job.cost.maxCost, _costPerMinute(job.definition, providerPrices), job.time.start);
    }

    function _costPerMinute(JobDefinition memory definition, ProviderPrices memory prices)
        private
        pure
        returns (uint256)
    {
        return JobRules.costPerMinute(
            definition.ntasks, definition.cpusPerTask, definition.memPerCpu, definition.gpus, prices
        );
    }
}
