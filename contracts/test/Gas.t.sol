// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/Market.sol";
import "../src/Types.sol";

/// @notice The gas of each call as a transaction of its own, written to snapshots/Gas.json; only with --isolate is it
/// that.
contract GasTest is MarketTest {
    uint256 private constant BATCH = 50;
    uint256 private total;

    /// @notice The second job of a customer and a provider: what first jobs pay once is not in it.
    function test_OneJob() public {
        _live("first");
        total = 0;
        _live("life");
        vm.snapshotValue("Gas", "life, total", total);
    }

    function test_BatchOfFifty() public {
        _batch("first batch");
        total = 0;
        _batch("batch");
        vm.snapshotValue("Gas", "batch, total a job", total / BATCH);
    }

    /// @notice What a purchase has to be: one label, a name, no key.
    function _typical() private pure returns (JobDefinition memory definition) {
        definition = _definition();
        definition.memPerCpu = 2000;
        definition.batchLocationHash = "u3LX9nkPg";
        definition.uses = new Label[](1);
        definition.uses[0] = Label({key: "os", value: "linux"});
    }

    function _spent(string memory group, string memory what) private {
        total += vm.snapshotGasLastCall("Gas", string.concat(group, ", ", what));
    }

    function _live(string memory group) private {
        vm.prank(CUSTOMER);
        bytes32 id = market.requestNewJob(_typical(), LOCKED, "job", false);
        _spent(group, "request");
        _schedule(id, PROVIDER);
        _spent(group, "assign");
        _claim(PROVIDER);
        _spent(group, "claim");
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.RUNNING), 0, "", 0);
        _spent(group, "running");
        _pass(60);
        vm.prank(PROVIDER);
        market.providerSetJobStatus(id, uint8(JobStatus.FINISHED), 1, "", 0);
        _spent(group, "finished");
    }

    function _batch(string memory group) private {
        JobRequest[] memory requests = new JobRequest[](BATCH);
        for (uint256 i = 0; i < BATCH; i++) {
            requests[i] = JobRequest(_typical(), LOCKED / 10, "job", false, type(uint256).max, 0);
        }
        vm.prank(CUSTOMER);
        bytes32[] memory ids = market.requestNewJobs(requests);
        _spent(group, "request");
        JobReport[] memory running = new JobReport[](BATCH);
        JobReport[] memory finished = new JobReport[](BATCH);
        for (uint256 i = 0; i < BATCH; i++) {
            running[i] = JobReport(ids[i], uint8(JobStatus.RUNNING), 0, "", 0);
            finished[i] = JobReport(ids[i], uint8(JobStatus.FINISHED), 60, "", 0);
        }
        vm.prank(SCHEDULER);
        market.metaScheduleMany(_assignments(ids, PROVIDER));
        _spent(group, "assign");
        vm.prank(PROVIDER);
        market.claimNextJobs(BATCH);
        _spent(group, "claim");
        vm.prank(PROVIDER);
        market.providerSetJobStatuses(running);
        _spent(group, "running");
        _pass(60);
        vm.prank(PROVIDER);
        market.providerSetJobStatuses(finished);
        _spent(group, "finished");
    }
}
