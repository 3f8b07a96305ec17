"""The committed stubs are what the generator makes of the .proto files."""

import subprocess
import sys
from pathlib import Path

import deepsquare.wire
from deepsquare.wire import logger_v1alpha1_pb2, sbatchapi_v1alpha1_pb2

WIRE = Path(deepsquare.wire.__file__).parent

# Name, number, type and label of each field: what the wire fixes.
LOGGER = """
ReadRequest address=1:string log_name=2:string timestamp=3:uint64 signed_hash=4:bytes
ReadResponse data=1:bytes timestamp=2:int64
WatchListRequest address=1:string timestamp=2:uint64 signed_hash=3:bytes
WatchListResponse log_names=1:string*
WriteRequest log_name=1:string user=2:string data=3:bytes timestamp=4:int64 offset=5:uint64
WriteResponse
LoggerAPI Read(ReadRequest)->stream ReadResponse
LoggerAPI WatchList(WatchListRequest)->stream WatchListResponse
LoggerAPI Write(stream WriteRequest)->WriteResponse
"""
SBATCH = """
ChallengeRequest
ChallengeResponse challenge=1:bytes
GetSBatchRequest batch_location_hash=1:string signed_challenge=2:bytes challenge=3:bytes provider_address=4:bytes \
customer_address=5:bytes job_id=6:string
GetSBatchResponse sbatch=1:string grid_logger_url=2:string
AuthAPI Challenge(ChallengeRequest)->ChallengeResponse
SBatchAPI GetSBatch(GetSBatchRequest)->GetSBatchResponse
"""
TYPES = {3: "int64", 4: "uint64", 9: "string", 12: "bytes"}


def described(file) -> set[str]:
    lines = set()
    for message in file.message_types_by_name.values():
        fields = (
            f"{field.name}={field.number}:{TYPES[field.type]}{'*' if field.label == field.LABEL_REPEATED else ''}"
            for field in message.fields
        )
        lines.add(" ".join([message.name, *fields]))
    for service in file.services_by_name.values():
        for method in service.methods:
            taken = "stream " * method.client_streaming + method.input_type.name
            given = "stream " * method.server_streaming + method.output_type.name
            lines.add(f"{service.name} {method.name}({taken})->{given}")
    return lines


def test_the_logger_speaks_deepsquares_protocol():
    assert logger_v1alpha1_pb2.DESCRIPTOR.package == "logger.v1alpha1"
    assert described(logger_v1alpha1_pb2.DESCRIPTOR) == set(LOGGER.strip().splitlines())


def test_the_sbatch_api_speaks_deepsquares_protocol():
    assert sbatchapi_v1alpha1_pb2.DESCRIPTOR.package == "sbatchapi.v1alpha1"
    assert described(sbatchapi_v1alpha1_pb2.DESCRIPTOR) == set(SBATCH.strip().splitlines())


def test_generating_them_again_changes_nothing(tmp_path):
    subprocess.run([sys.executable, WIRE / "generate", tmp_path], check=True)
    generated = {path.name: path.read_text() for path in (tmp_path / "deepsquare" / "wire").iterdir()}
    assert len(generated) == 6
    for name, text in generated.items():
        assert (WIRE / name).read_text() == text, f"{name} is stale: run core/src/deepsquare/wire/generate"
