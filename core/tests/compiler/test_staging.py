"""Data of jobs: what reaches curl and s5cmd, byte for byte; the programs themselves are in the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deepsquare.compiler.staging import file_name
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import text
from tests.web import Web, web

# A double: its words and its environment, each ended by a NUL.
S5CMD = """\
#!/bin/bash
printf '%s\\0' "$@" >"${0%/*}/../words"
env --null >"${0%/*}/../variables"
"""
# What a URL may have in its path without meaning something else: curl takes away dots, and what is behind #.
_path = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?."), min_size=1, max_size=30
).filter(lambda it: "//" not in f"/{it}")


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    with web({}) as made:
        yield made


@settings(max_examples=40, deadline=None)
@given(path=_path, query=_path)
def test_any_url_arrives_at_its_server(path: str, query: str, site: Web, new_node, job) -> None:
    site.files[f"/{path}?{query}"] = b"content"
    node = new_node()
    url = f"{site.url}/{path}?{query}"
    ended = node.run(job('cd "$DEEPSQUARE_INPUT" && cat ./*', input={"http": {"url": url}}))
    assert (ended.code, ended.output.splitlines()[-1]) == (0, b"content"), ended
    assert site.requests[-1].path == f"/{path}?{query}"


@settings(max_examples=40, deadline=None)
@given(key=text.filter(bool), secret=text.filter(bool), region=text, path=text)
def test_any_text_arrives_at_s5cmd(key: str, secret: str, region: str, path: str, site: Web, new_node, job) -> None:
    node = new_node()
    node.add_program("s5cmd", S5CMD)
    s3 = {"region": region, "bucketUrl": "s3://bucket", "path": f"/{path}", "endpointUrl": site.url}
    output = {"s3": s3 | {"accessKeyId": key, "secretAccessKey": secret}}
    node.variables |= {"AWS_SESSION_TOKEN": "of the node", "AWS_PROFILE": "of the node"}
    ended = node.run(
        job('touch "$DEEPSQUARE_OUTPUT/file"', output=output, env=[{"key": "AWS_ACCESS_KEY_ID", "value": "of the job"}])
    )
    assert ended.code == 0, ended
    words = (node.folder / "words").read_bytes().decode().split("\0")
    assert words[words.index("--destination-region") + 1] == region
    target = f"s3://bucket/{path}"
    assert words[-2] == (target if target.endswith("/") else f"{target}/")
    variables = dict(
        line.split(b"=", 1) for line in (node.folder / "variables").read_bytes().split(b"\0") if b"=" in line
    )
    assert variables[b"AWS_ACCESS_KEY_ID"] == key.encode()
    assert variables[b"AWS_SECRET_ACCESS_KEY"] == secret.encode()
    assert variables[b"S3_ENDPOINT_URL"] == site.url.encode()
    assert not variables.keys() & {b"AWS_SESSION_TOKEN", b"AWS_PROFILE"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a/b/c.tar.gz?x=/d", "c.tar.gz"),
        ("https://a", "index.html"),
        ("https://a/", "index.html"),
        ("https://a/..", "index.html"),
        ("https://a/%2E%2E", "index.html"),
        ("https://a/x%2Fy", "y"),
        ("https://a/a%20b%00c", "a bc"),
        ("https://a/%C3%A9", "é"),
        ("https://a/%FF", "\ufffd"),
    ],
)
def test_names_of_files(url: str, name: str) -> None:
    assert file_name(url) == name


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"])))
def test_a_name_is_always_one_that_a_file_can_have(path: str) -> None:
    name = file_name(f"https://a/{path}")
    assert 0 < len(name.encode()) <= 255
    assert "/" not in name
    assert "\0" not in name
    assert name not in (".", "..")
