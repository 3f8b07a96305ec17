// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A number that does not fit, and those that do.
error OutOfRange(uint256 value, uint256 lowest, uint256 highest);

/// @notice Life of a job. Hot: PENDING to RUNNING; cold: CANCELLED to PANICKED.
enum JobStatus {
    PENDING,
    META_SCHEDULED,
    SCHEDULED,
    RUNNING,
    CANCELLED,
    FINISHED,
    FAILED,
    OUT_OF_CREDITS,
    PANICKED
}

/// @notice Where a job's data is staged.
enum StorageType {
    TRANSFER_HOST,
    HTTP,
    S3,
    UNUSED,
    NONE
}

struct Label {
    string key;
    string value;
}

/// @notice A demand on a provider's label: `label.key`'s value, `op`, `label.value`.
struct Affinity {
    Label label;
    /// @dev ASCII, zero-padded: `<`, `<=`, `==`, `>=`, `>`, `!=`, `in`.
    bytes2 op;
}

struct JobDefinition {
    /// @dev GPUs of the whole job.
    uint64 gpus;
    /// @dev In MB.
    uint64 memPerCpu;
    uint64 cpusPerTask;
    uint64 ntasks;
    /// @dev The id that the sbatch API gave to the job's script.
    string batchLocationHash;
    /// @dev A StorageType. As a number, so that a wrong one is refused with a reason.
    uint8 storageType;
    Label[] uses;
    Affinity[] affinity;
}

/// @notice All amounts in wei of credit.
struct JobCost {
    /// @dev Everything that is locked for the job, top-ups included.
    uint256 maxCost;
    /// @dev What was billed, once the job is cold.
    uint256 finalCost;
    /// @dev The part of maxCost of which the provider does not know yet.
    uint256 pendingTopUp;
    /// @dev Whether the meta-scheduler may top up from the customer's allowance.
    bool delegateSpendingAuthority;
}

/// @notice Unix seconds (0: not yet), but for blockNumberStateChange, a block number.
struct JobTime {
    uint256 submit;
    uint256 start;
    uint256 end;
    uint256 cancelRequestTimestamp;
    uint256 blockNumberStateChange;
    uint256 panicTimestamp;
}

struct Job {
    bytes32 jobId;
    JobStatus status;
    address customerAddr;
    address providerAddr;
    JobDefinition definition;
    JobCost cost;
    JobTime time;
    /// @dev UTF-8, right-padded.
    bytes32 jobName;
    bool hasCancelRequest;
    string lastError;
    /// @dev The scheduler's raw wait status: exit code * 256 + signal.
    int64 exitCode;
}

/// @notice Whose jobs a page has; fields that are zero let all through.
struct JobFilter {
    address customer;
    address provider;
    /// @dev The bit 1 << status for each status that is wanted.
    uint256 statuses;
}

/// @notice One job of a request for many.
struct JobRequest {
    JobDefinition definition;
    uint256 lockedCredits;
    bytes32 jobName;
    bool delegateSpendingAuthority;
    /// @dev Wei that delegated top-ups may add in all, also if they are allowed only later; the largest number: the
    /// allowance is the only bound.
    uint256 delegateCap;
    /// @dev The customer's own name for the purchase: a second request with it buys nothing. 0: none.
    bytes32 key;
}

/// @notice One job's assignment of many.
struct Assignment {
    bytes32 jobId;
    address provider;
    /// @dev Wei of credit that a minute may cost at most: prices can change before the assignment is carried out.
    uint256 mostPerMinute;
}

/// @notice One job's report of many.
struct JobReport {
    bytes32 jobId;
    /// @dev A JobStatus. As a number, so that a wrong one is refused with a reason.
    uint8 status;
    /// @dev Seconds that the job ran; billed with a cold status.
    uint64 durationSecond;
    string lastError;
    int64 exitCode;
}

/// @notice The kinds of news that a provider has to take notice of, each a queue.
enum QueueKind {
    CLAIMABLE,
    CANCELLING,
    TOP_UP
}

/// @notice All settings of the market: see Constants.
struct Settings {
    uint96 minimumAmount;
    uint8 deepsquareCut;
    uint32 billDurationDeltaMinute;
    uint32 cancellationFeeMinute;
    uint32 claimJobTimeout;
    uint32 topUpSliceDurationMin;
}

/// @notice One entry a node in each array.
struct ProviderHardware {
    uint64 nodes;
    uint64[] gpusPerNode;
    uint64[] cpusPerNode;
    /// @dev In MB.
    uint64[] memPerNode;
}

/// @notice Wei of credit per minute: for a GPU, for a CPU, for a MB of memory.
struct ProviderPrices {
    uint256 gpuPricePerMin;
    uint256 cpuPricePerMin;
    uint256 memPricePerMin;
}

struct Provider {
    address addr;
    ProviderHardware providerHardware;
    ProviderPrices providerPrices;
    Label[] labels;
    bool isBanned;
}
