"""The signed texts, byte for byte as DeepSquare's clients sign them."""

import base64
import json
import subprocess
import sys
import time

import pytest
from deepsquare.wire import messages
from hypothesis import given
from hypothesis import strategies as st

ADDRESS = "0xAbCdEf0000000000000000000000000000000001"


def test_the_texts():
    assert messages.read_text(ADDRESS, "0x2a", 7) == b"read:0xabcdef0000000000000000000000000000000001/0x2a/7"
    assert messages.watch_list_text(ADDRESS, 7) == b"watchList:0xabcdef0000000000000000000000000000000001/7"
    assert messages.write_text(ADDRESS, "0x2a", 7) == b"write:0xabcdef0000000000000000000000000000000001/0x2a/7"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert messages.submit_text(ADDRESS, b"", 7).decode() == f"submit:{ADDRESS.lower()}/{empty}/7"


@given(st.binary(max_size=64))
def test_a_challenge_carries_its_nonce(nonce):
    challenge = messages.login_challenge(nonce)
    assert json.loads(challenge) == {"message": "login", "nonce": base64.b64encode(nonce).decode()}
    assert messages.challenge_nonce(challenge) == nonce


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_anything_else_is_no_challenge(data):
    assert messages.challenge_nonce(data) is None


@pytest.mark.parametrize(
    "content",
    [{"message": "logout", "nonce": ""}, {"message": "login", "nonce": 1}, {"message": "login", "nonce": "é"}],
)
def test_nearly_a_challenge_is_none(content):
    assert messages.challenge_nonce(json.dumps(content).encode()) is None


def test_a_deep_text_is_not_parsed():
    assert messages.challenge_nonce(b"[" * 1_000_000) is None


@pytest.mark.parametrize("unit", [1, 1000])
def test_fresh_is_five_minutes_either_way_in_seconds_or_milliseconds(unit):
    now = 1_800_000_000
    for age, fresh in [(0, True), (299, True), (-299, True), (301, False), (-301, False)]:
        assert messages.is_fresh((now - age) * unit, now=now) is fresh
    assert messages.is_fresh(int(time.time() * unit))
    assert not messages.is_fresh(0)
    assert not messages.is_fresh(2**64 - 1)


def test_the_texts_need_no_grpc():
    code = "import sys, deepsquare.wire.messages; assert not {'grpc', 'google.protobuf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
