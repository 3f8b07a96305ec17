from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from deepsquare.compiler.quoting import quote, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

# What shells treat specially, and what their parsers used to stumble over.
PIECES = (
    *("'", '"', "\\", "\n", "\r", "\t", " ", "$", "$(touch hacked)", "`touch hacked`", "${HOME}", "~", "*", "?", "!"),
    *(";", "&", "|", "<", ">", "#", "=", "-n", "%s", "\\0", "END_OF_FILE_0", "\nEND_OF_FILE_0\n", "\nEND_OF_FILE_1\n"),
    *("\x01", "\x7f", "\x1b[31m", "é", "😀", "\u2028", "\ufeff", "EOF", "<<'EOF'\n", "$'\\n'", "{a,b}"),
)
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
locales = st.sampled_from(["C", "C.UTF-8", "POSIX"])
in_a_process = settings(max_examples=40, deadline=None)


def shell(script: str, folder: Path, locale: str = "C.UTF-8", program: str = "/bin/bash") -> bytes:
    path = folder / "script"
    path.write_bytes(script.encode())
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": locale, "HOME": "/home/of/nobody"}
    ended = subprocess.run([program, path], capture_output=True, env=environment, cwd=folder, check=True)
    assert ended.stderr == b""
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quoting")


@in_a_process
@given(st.lists(texts, min_size=1, max_size=20), locales, st.sampled_from(["/bin/bash", "/bin/sh"]))
def test_quoted_text_is_one_word_with_the_same_bytes(folder: Path, words: list[str], locale: str, program: str) -> None:
    quoted = " ".join(map(quote, words))
    assert shell(f"printf '%s\\0' {quoted}\n", folder, locale, program) == "".join(f"{w}\0" for w in words).encode()
    assert not (folder / "hacked").exists()


@in_a_process
@given(st.lists(texts, min_size=1, max_size=20), locales)
def test_quoted_text_is_a_value_with_the_same_bytes(folder: Path, values: list[str], locale: str) -> None:
    lines = [f"export V_{number}={quote(value)}\n" for number, value in enumerate(values)]
    lines.append("printf '%s\\0' " + " ".join(f'"$V_{number}"' for number in range(len(values))))
    assert shell("".join(lines), folder, locale) == "".join(f"{value}\0" for value in values).encode()


@in_a_process
@given(st.lists(texts, min_size=1, max_size=10), locales)
def test_a_written_file_has_the_same_bytes_and_a_newline(folder: Path, contents: list[str], locale: str) -> None:
    names = [f"file {number}" for number in range(len(contents))]
    script = "".join(write_file(quote(name), content) for name, content in zip(names, contents, strict=True))
    assert shell(script + "echo after", folder, locale) == b"after\n"
    assert [(folder / name).read_bytes() for name in names] == [f"{content}\n".encode() for content in contents]
    assert not (folder / "hacked").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "\n\n\n",
        "no newline",
        "newlines\n\n",
        "END_OF_FILE_0",
        "END_OF_FILE_0\nEND_OF_FILE_1\nEND_OF_FILE_2\n",
        "END_OF_FILE_1\ntouch hacked",
        " END_OF_FILE_0\nEND_OF_FILE_0 ",
        "END_OF_FILE_0\r\n",
        "$(touch hacked) `touch hacked` ${HOME} \\$HOME \\\n'\"",
        pytest.param("x" * (1 << 20), id="a long line"),
        pytest.param("\n".join(f"END_OF_FILE_{number}" for number in range(2000)), id="delimiters"),
    ],
)
def test_files_that_look_like_their_own_end(content: str, tmp_path: Path) -> None:
    assert shell(write_file("there", content) + "echo after", tmp_path) == b"after\n"
    assert (tmp_path / "there").read_bytes() == f"{content}\n".encode()
    assert not (tmp_path / "hacked").exists()


@in_a_process
@given(texts)
def test_a_file_written_by_a_written_script_is_still_the_same(folder: Path, content: str) -> None:
    inner = write_file("inner", content)
    shell(write_file("outer", inner) + ". ./outer\n", folder)
    assert (folder / "inner").read_bytes() == f"{content}\n".encode()
