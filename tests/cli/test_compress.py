"""`compress` and `decompress`: files and pipes, and what goes wrong."""

import io
import re
import sys

import pytest
from folders import write_random_model

from nbgpt.cli.compress import SUFFIX
from nbgpt.cli.main import main
from nbgpt.compression.codec import CHUNK_SIZE
from nbgpt.compression.container import Container

TEXT = "it was a dark and stormy night, Naïve 😀.\r\n" * 3
DATA = TEXT.encode() + b"\xff\x00"
SUMMARY = r"nbgpt: {} bytes in, {} out, \d+\.\d\d\d bits a byte, \d+\.\d s\n"


@pytest.fixture(scope="module")
def plain(folder):
    """A model of random weights."""
    return write_random_model(folder / "plain.safetensors")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def packed(run, plain, file):
    """The file, compressed beside it."""
    path = file.with_name(file.name + SUFFIX)
    code, out, err = run("compress", file, "--model", plain, "--chunk-size", 20)
    assert (code, out) == (0, "")
    assert re.fullmatch(SUMMARY.format(len(DATA), path.stat().st_size), err)
    return path


def test_a_file_and_back(run, plain, file, packed):
    file.unlink()
    code, out, err = run("decompress", packed, "--model", plain)
    assert (code, out, file.read_bytes()) == (0, "", DATA)
    assert re.fullmatch(SUMMARY.format(packed.stat().st_size, len(DATA)), err)


def test_a_file_that_is_there_is_kept(run, fails, plain, file, packed):
    before, later = packed.read_bytes(), b"later"
    file.write_bytes(later)
    assert "is there already: give another name with -o, or --force" in fails("decompress", packed, "--model", plain)[1]
    assert "is there already" in fails("compress", file, "--model", plain)[1]
    assert (file.read_bytes(), packed.read_bytes()) == (later, before)
    assert run("decompress", packed, "--model", plain, "--force")[0] == 0
    assert file.read_bytes() == DATA


def test_bits_a_byte_are_those_of_the_compressed_file(run, plain, packed, tmp_path):
    _, _, err = run("decompress", packed, "-o", tmp_path / "out", "--model", plain)
    assert f"{8 * packed.stat().st_size / len(DATA):.3f} bits a byte" in err


def test_pipes(run, plain, tmp_path):
    path = tmp_path / "packed"
    assert run("compress", "-", "-o", path, "--model", plain, stdin=TEXT.encode())[0] == 0
    code, out, _ = run("decompress", "-", "--model", plain, stdin=path.read_bytes())
    assert (code, out) == (0, TEXT)


def test_compressed_to_standard_output(plain, file, packed, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    assert main(["compress", str(file), "-o", "-", "--model", str(plain), "--chunk-size", "20"]) == 0
    assert written.getvalue() == packed.read_bytes()


def test_chunks(run, plain, packed, tmp_path):
    part, parts = tmp_path / "part", []
    for i in range(len(Container.from_bytes(packed.read_bytes()).chunks)):
        assert run("decompress", packed, "--chunk", i, "-o", part, "--force", "--model", plain)[0] == 0
        parts.append(part.read_bytes())
    assert len(parts) > 3
    assert b"".join(parts) == DATA


def test_a_chunk_goes_to_standard_output(run, plain, file):
    """And not to the place of the whole file."""
    file.write_bytes(b"it was a dark and stormy night. " * 3)
    run("compress", file, "--model", plain, "--chunk-size", 20)
    packed, whole = file.with_name(file.name + SUFFIX), file.read_text()
    code, out, err = run("decompress", packed, "--chunk", 1, "--model", plain)
    assert (code, file.read_text()) == (0, whole)
    assert 0 < len(out) < len(whole)
    assert out in whole
    assert f"{8 * packed.stat().st_size / len(whole):.3f} bits a byte" in err


def test_the_empty_file(run, plain, tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert run("compress", path, "--model", plain)[0] == 0
    path.unlink()
    assert run("decompress", f"{path}{SUFFIX}", "--model", plain)[0] == 0
    assert path.read_bytes() == b""


def test_the_help_knows_the_size_of_chunks(run):
    assert f"more space; default: {CHUNK_SIZE} " in " ".join(run("compress", "--help")[1].split())


def test_a_damaged_file_leaves_the_old_one(fails, plain, file, packed):
    whole = packed.read_bytes()
    for data, message in [
        (whole[:-1], "damaged or cut off"),
        (whole[:70] + b"?" + whole[71:], "damaged or cut off"),
        (b"text", "no file that nbgpt has compressed: it begins with b'text'"),
        (b"", "no file that nbgpt has compressed"),
    ]:
        packed.write_bytes(data)
        code, line = fails("decompress", packed, "--model", plain)
        assert (code, file.read_bytes()) == (1, DATA)
        assert message in line
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, packed.name]


def test_another_model_leaves_nothing(fails, recital, packed, file):
    file.unlink()
    code, line = fails("decompress", packed, "--model", recital)
    assert code == 2
    assert "was compressed with the model 'plain float32, cache float32'" in line
    assert [path.name for path in file.parent.iterdir()] == [packed.name]


def test_what_cannot_be_done(fails, plain, file, packed, tmp_path):
    for arguments, code, message in [
        (["decompress", file], 1, "no file that nbgpt has compressed"),
        (["decompress", tmp_path / "none.nbgpt"], 1, "No such file"),
        (["compress", tmp_path / "none"], 1, "No such file"),
        (["compress", tmp_path], 1, "Is a directory"),
        (["compress", file, "-o", tmp_path], 1, "this is a folder"),
        (["compress", file, "-o", tmp_path / "none" / "file"], 1, "No such file"),
        (["compress", file, "--force", "--chunk-size", 0], 2, "chunk_size is 0"),
        (["decompress", packed, "--chunk", 99], 2, "chunk is 99"),
    ]:
        found, line = fails(*arguments, "--model", plain)
        assert (found, message in line) == (code, True), line
    renamed = packed.rename(tmp_path / "packed")
    assert "does not end in .nbgpt: say with -o" in fails("decompress", renamed, "--model", plain)[1]
