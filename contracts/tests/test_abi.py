"""The interface that clients, services and supervisors of DeepSquare speak, against the compiled contracts.

The table is the contract with the outside: entries may be added to the contracts, none of these may change.
"""

import json
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).resolve().parents[2] / "core" / "src" / "deepsquare" / "chain" / "artifacts"

LABELS = "(string,string)[]"
DEFINITION = f"(uint64,uint64,uint64,uint64,string,uint8,{LABELS},((string,string),bytes2)[])"
COST = "(uint256,uint256,uint256,bool)"
TIME = "(uint256,uint256,uint256,uint256,uint256,uint256)"
JOB = f"(bytes32,uint8,address,address,{DEFINITION},{COST},{TIME},bytes32,bool,string,int64)"
HARDWARE = "(uint64,uint64[],uint64[],uint64[])"
PRICES = "(uint256,uint256,uint256)"
PROVIDER = f"(address,{HARDWARE},{PRICES},{LABELS},bool)"

ACCESS_CONTROL = [
    "event RoleAdminChanged(bytes32 indexed,bytes32 indexed,bytes32 indexed)",
    "event RoleGranted(bytes32 indexed,address indexed,address indexed)",
    "event RoleRevoked(bytes32 indexed,address indexed,address indexed)",
    "function DEFAULT_ADMIN_ROLE() view -> bytes32",
    "function getRoleAdmin(bytes32) view -> bytes32",
    "function grantRole(bytes32,address)",
    "function hasRole(bytes32,address) view -> bool",
    "function renounceRole(bytes32,address)",
    "function revokeRole(bytes32,address)",
    "function supportsInterface(bytes4) view -> bool",
]

OWNABLE = [
    "event OwnershipTransferred(address indexed,address indexed)",
    "function owner() view -> address",
    "function renounceOwnership()",
    "function transferOwnership(address)",
]

INTERFACES = {
    "MetaScheduler": [
        *ACCESS_CONTROL,
        "constructor(address,address,address,address,address)",
        "error CustomerMetaSchedulerProviderOnly()",
        "error CustomerOnly(address,address)",
        "error InsufficientFunds(uint256,uint256)",
        "error InvalidJobDefinition()",
        "error JobHotStatusOnly(uint8)",
        "error JobProviderOnly(address,address)",
        "error MetaScheduledScheduledStatusOnly(uint8)",
        "error NewJobRequestDisabled()",
        "error NoSpendingAuthority()",
        "error ProviderNotJoined()",
        "error RemainingTimeAboveLimit(uint256,uint256)",
        "error RunningColdStatusOnly(uint8)",
        "error RunningScheduledStatusOnly(uint8)",
        "event BilledTooMuchEvent(bytes32,address,uint256)",
        f"event ClaimJobEvent(address,address,bytes32,uint64,{DEFINITION})",
        "event ClaimNextCancellingJobEvent(address,address,bytes32)",
        "event ClaimNextTopUpJobEvent(bytes32,address,uint64)",
        "event JobRefusedEvent(bytes32,address,address)",
        "event NewJobRequestEvent(bytes32,address)",
        "function METASCHEDULER_ROLE() view -> bytes32",
        "function cancelJob(bytes32)",
        "function claimNextCancellingJob()",
        "function claimNextJob()",
        "function claimNextTopUpJob()",
        "function constants() view -> address",
        "function credit() view -> address",
        "function enableRequestNewJob() view -> bool",
        "function jobs() view -> address",
        "function metaSchedule(bytes32,address)",
        "function panicJob(bytes32,string)",
        "function providerJobQueues() view -> address",
        "function providerManager() view -> address",
        "function providerSetJobStatus(bytes32,uint8,uint64,string,int64)",
        "function refuseJob(bytes32)",
        f"function requestNewJob({DEFINITION},uint256,bytes32,bool) -> bytes32",
        "function setDelegateSpendingAuthority(bytes32,bool)",
        "function setEnableRequestNewJob(bool)",
        "function timeoutJob(bytes32)",
        "function topUpJob(bytes32,uint256)",
        "function topUpJobDelegate(bytes32)",
        "function withdrawAdmin(uint256)",
    ],
    "JobRepository": [
        *ACCESS_CONTROL,
        "constructor()",
        "error InvalidJob()",
        "event JobCreated(bytes32)",
        "event JobTransitionEvent(bytes32,uint8,uint8)",
        "function METASCHEDULER_ROLE() view -> bytes32",
        f"function create({JOB}) -> bytes32",
        f"function get(bytes32) view -> {JOB}",
        "function getByCustomer(address) view -> bytes32[]",
        "function jobIdByCustomer(address,uint256) view -> bytes32",
        "function jobIdCounter() view -> uint256",
        f"function jobs(bytes32) view -> bytes32,uint8,address,address,{DEFINITION},{COST},{TIME},bytes32,bool,string,int64",
        f"function setCost(bytes32,{COST})",
        "function setCustomerAddr(bytes32,address)",
        f"function setDefinition(bytes32,{DEFINITION})",
        "function setExitCode(bytes32,int64)",
        "function setHasCancelRequest(bytes32,bool)",
        "function setJobName(bytes32,bytes32)",
        "function setJobStatus(bytes32,uint8)",
        "function setLastError(bytes32,string)",
        "function setProviderAddr(bytes32,address)",
        f"function setTime(bytes32,{TIME})",
        f"function update({JOB})",
    ],
    "ProviderManager": [
        *ACCESS_CONTROL,
        "constructor()",
        "error AlreadyDone()",
        "error ArrayLengthMismatch()",
        "error Banned()",
        "error InvalidNodesCount()",
        "error InvalidTotalCpus()",
        "error InvalidTotalMem()",
        "error NoProvider()",
        "error WaitingApprovalOnly()",
        "event NewHead(uint256)",
        "event NewTail(uint256)",
        "event ObjectCreated(uint256,bytes32)",
        "event ObjectRemoved(uint256)",
        "event ObjectsLinked(uint256,uint256)",
        "event ProviderApproved(address)",
        "event ProviderBanChanged(address,bool)",
        "event ProviderRemoved(address)",
        "event ProviderWaitingForApproval(address)",
        "function METASCHEDULER_CONTRACT_ROLE() view -> bytes32",
        "function METASCHEDULER_ROLE() view -> bytes32",
        "function PROVIDER_REGISTRATION_TAX() view -> uint256",
        "function approve(address)",
        "function ban(address)",
        "function elementCount() view -> uint256",
        "function fetchPage(uint256,uint256) view -> bytes32[],uint256,uint256",
        "function findIdForDataFrom(bytes32,uint256) view -> uint256",
        "function get(uint256) view -> uint256,uint256,uint256,bytes32",
        "function getJobCount(address) view -> uint64",
        f"function getLabels(address) view -> {LABELS}",
        f"function getProvider(address) view -> {PROVIDER}",
        f"function getProviderHardware(address) view -> {HARDWARE}",
        f"function getProviderPrices(address) view -> {PRICES}",
        f"function getWaitingForApprovalProvider(address) view -> {PROVIDER}",
        "function head() view -> uint256",
        "function idCounter() view -> uint256",
        "function incJobCount(address)",
        "function isBanned(address) view -> bool",
        "function isValidForScheduling(address) view -> bool",
        "function isWaitingForApproval(address) view -> bool",
        "function jobCountByProvider(address) view -> uint64",
        "function objects(uint256) view -> uint256,uint256,uint256,bytes32",
        f"function providers(address) view -> address,{HARDWARE},{PRICES},bool",
        f"function register({HARDWARE},{PRICES},{LABELS})",
        "function remove(address)",
        "function tail() view -> uint256",
        "function unban(address)",
        f"function waitingApprovalProviders(address) view -> address,{HARDWARE},{PRICES},bool",
    ],
    "ProviderJobQueues": [
        *OWNABLE,
        "constructor(address)",
        "error Empty()",
        "error NoJob()",
        "error OutOfBounds()",
        "function getCancellingJobQueueSize(address) view -> uint256",
        "function getClaimableJobQueueSize(address) view -> uint256",
        "function getTopUpJobQueueSize(address) view -> uint256",
        "function hasCancellingJob(address) view -> bool",
        "function hasNextClaimableJob(address) view -> bool",
        "function hasTopUpJob(address) view -> bool",
        "function jobs() view -> address",
        "function popNextCancellingJob(address) -> bytes32",
        "function popNextClaimableJob(address) -> bytes32",
        "function popNextTopUpJob(address) -> bytes32",
        "function providerCancellingJobsQueues(address) view -> int128,int128",
        "function providerClaimableJobsQueues(address) view -> int128,int128",
        "function providerTopUpJobsQueues(address) view -> int128,int128",
        "function pushCancellingJob(address,bytes32)",
        "function pushClaimableJob(address,bytes32)",
        "function pushTopUpJob(address,bytes32)",
    ],
    "Credit": [
        *OWNABLE,
        "constructor(uint256)",
        "event Approval(address indexed,address indexed,uint256)",
        "event Transfer(address indexed,address indexed,uint256)",
        "function allowance(address,address) view -> uint256",
        "function approve(address,uint256) -> bool",
        "function balanceOf(address) view -> uint256",
        "function decimals() view -> uint8",
        "function decreaseAllowance(address,uint256) -> bool",
        "function increaseAllowance(address,uint256) -> bool",
        "function mint(address,uint256)",
        "function name() view -> string",
        "function symbol() view -> string",
        "function totalSupply() view -> uint256",
        "function transfer(address,uint256) -> bool",
        "function transferFrom(address,address,uint256) -> bool",
    ],
    "Constants": [
        *OWNABLE,
        "function billDurationDeltaMinute() view -> uint256",
        "function cancellationFeeMinute() view -> uint256",
        "function claimJobTimeout() view -> uint64",
        "function deepsquareCut() view -> uint256",
        "function minimumAmount() view -> uint256",
        "function setBillDurationDeltaMinute(uint256)",
        "function setCancellationFeeMinute(uint256)",
        "function setClaimJobTimeout(uint64)",
        "function setDeepsquareCut(uint256)",
        "function setMinimumAmount(uint256)",
        "function setTopUpSliceDurationMin(uint64)",
        "function topUpSliceDurationMin() view -> uint64",
    ],
    "FaucetCredit": [
        *OWNABLE,
        "constructor(address)",
        "function addressToAmountDistributed(address) view -> uint256",
        "function addressToUserCredit(address) view -> uint256",
        "function claim()",
        "function credit() view -> address",
        "function creditUser(address,uint256)",
        "function totalDistributed() view -> uint256",
    ],
    "FaucetNative": [
        *OWNABLE,
        "event Received(address,uint256)",
        "function addressToAmountDistributed(address) view -> uint256",
        "function addressToUserCredit(address) view -> uint256",
        "function claim()",
        "function creditUser(address,uint256)",
        "function totalCredited() view -> uint256",
        "function totalDistributed() view -> uint256",
        "function users(uint256) view -> address",
        "receive()",
    ],
    "Tools": [
        "error InvalidTransition(uint8,uint8)",
        "error JobHotStatusOnly(uint8)",
        "error SameStatusError()",
        "function checkNewJobStatus(uint8,uint8) pure",
        f"function convertCreditToDuration({DEFINITION},{PRICES},uint256) pure -> uint64",
        f"function convertDurationToCredit({DEFINITION},{PRICES},uint64) pure -> uint256",
        f"function getRemainingTime({JOB},{PRICES}) view -> uint64",
        "function isDelegateTopable(uint8) pure -> bool",
        "function isJobCold(uint8) pure -> bool",
        f"function isJobDefinitionValid({DEFINITION}) pure -> bool",
        "function isJobHot(uint8) pure -> bool",
    ],
}

REQUEST = f"({DEFINITION},uint256,bytes32,bool,uint256,bytes32)"
REPORT = "(bytes32,uint8,uint64,string,int64)"

ADDITIONS = {
    "JobRepository": [
        "event JobStatusChanged(bytes32 indexed,address indexed,address indexed,uint8,uint8,uint256)",
        f"function getMany(bytes32[]) view -> {JOB}[]",
        f"function getPage((address,address,uint256),uint256,uint256) view -> {JOB}[],uint256",
        "function getState(bytes32) view -> (uint256,address,address,uint256,uint256)",
        "function costPerMinute(bytes32) view -> uint256",
        "function delegateAllowance(bytes32) view -> uint256",
        "function providerOf(bytes32) view -> address",
    ],
    "MetaScheduler": [
        "error ClaimTimeoutNotReached(uint256)",
        "error DelegateCapReached(uint256,uint256)",
        "error MetaScheduledStatusOnly(uint8)",
        "error ProviderInTime(uint256)",
        "event AdminWithdrawal(address indexed,uint256)",
        "event DelegateSpendingChanged(bytes32 indexed,bool,uint256)",
        "event JobCancelRequested(bytes32 indexed,address indexed,address indexed)",
        "event JobToppedUp(bytes32 indexed,address indexed,address indexed,uint256)",
        "event NoticeTaken(bytes32 indexed,address indexed,uint8)",
        "event RequestNewJobEnabled(bool)",
        "function EXTENSIONS() view -> uint256",
        "function claimNextCancellingJobs(uint256)",
        "function claimNextJobs(uint256)",
        "function claimNextTopUpJobs(uint256)",
        "function jobOfKey(address,bytes32) view -> bytes32",
        "function metaScheduleMany((bytes32,address,uint256)[])",
        "function providerSetJobStatusSecond(bytes32,uint8,uint64,string,int64)",
        f"function providerSetJobStatuses({REPORT}[])",
        f"function requestNewJobs({REQUEST}[]) -> bytes32[]",
        f"function requestNewJobsWithPermit({REQUEST}[],uint256,uint256,uint8,bytes32,bytes32) -> bytes32[]",
        "function setDelegateSpendingCap(bytes32,uint256)",
        "function withdrawable() view -> uint256",
    ],
    "ProviderJobQueues": [
        "function getQueue(address,uint8,uint256,uint256) view -> bytes32[],uint256",
        "function hasJob(address) view -> bool,bool,bool",
    ],
    "ProviderManager": [
        "error OutOfRange(uint256,uint256,uint256)",
        "event ProviderChanged(address indexed,uint8,bool)",
        "event ProviderOffer(address indexed,uint256,uint256,uint256)",
        "function MAX_LABELS() view -> uint256",
        "function MAX_LABEL_BYTES() view -> uint256",
        "function MAX_NODES() view -> uint256",
        f"function getOffer(address) view -> bool,{PRICES}",
        f"function getProviders(uint256,uint256) view -> {PROVIDER}[],uint256",
    ],
    "Credit": [
        "function DOMAIN_SEPARATOR() view -> bytes32",
        "function acceptOwnership()",
        "function nonces(address) view -> uint256",
        "function pendingOwner() view -> address",
        "function permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
    ],
    "Constants": [
        "error OutOfRange(uint256,uint256,uint256)",
        "event SettingChanged(bytes32 indexed,uint256)",
        "function acceptOwnership()",
        "function all() view -> (uint96,uint8,uint32,uint32,uint32,uint32)",
    ],
}

FIELDS_OF_A_JOB = [
    "jobId status customerAddr providerAddr definition cost time jobName hasCancelRequest lastError exitCode",
    "gpus memPerCpu cpusPerTask ntasks batchLocationHash storageType uses affinity",
    "maxCost finalCost pendingTopUp delegateSpendingAuthority",
    "submit start end cancelRequestTimestamp blockNumberStateChange panicTimestamp",
]


def interface(name: str) -> list[dict]:
    return json.loads((ARTIFACTS / f"{name}.json").read_text())["abi"]


def type_of(value: dict) -> str:
    if not value["type"].startswith("tuple"):
        return value["type"]
    return f"({','.join(map(type_of, value['components']))}){value['type'].removeprefix('tuple')}"


def signature(entry: dict) -> str:
    """One entry as the table writes it."""
    inputs = ",".join(type_of(value) + " indexed" * value.get("indexed", False) for value in entry.get("inputs", []))
    text = f"{entry['type']} {entry['name']}({inputs})" if "name" in entry else f"{entry['type']}({inputs})"
    if entry.get("stateMutability") in ("view", "pure"):
        text += f" {entry['stateMutability']}"
    if entry.get("outputs"):
        text += f" -> {','.join(map(type_of, entry['outputs']))}"
    return text


@pytest.mark.parametrize("name", INTERFACES)
def test_every_entry_is_there(name):
    compiled = set(map(signature, interface(name)))
    missing = [entry for entry in INTERFACES[name] + ADDITIONS.get(name, []) if entry not in compiled]
    assert not missing


@pytest.mark.parametrize("name", INTERFACES)
def test_no_event_is_anonymous(name):
    assert not any(entry["anonymous"] for entry in interface(name) if entry["type"] == "event")


def test_fields_of_a_job_have_their_names():
    (job,) = next(entry for entry in interface("JobRepository") if entry.get("name") == "get")["outputs"]
    structs = [job, *(field for field in job["components"] if field["type"] == "tuple")]
    assert [" ".join(field["name"] for field in struct["components"]) for struct in structs] == FIELDS_OF_A_JOB
