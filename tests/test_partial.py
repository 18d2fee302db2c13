"""Partial files: never of a living process, never half of a file."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbgpt import partial
from nbgpt.partial import leftovers, remove_leftover, scratch_folder, whole_file

WRITER = """
import sys, time
from pathlib import Path
from nbgpt.partial import scratch_folder, whole_file
folder, kind = Path(sys.argv[1]), sys.argv[2]
write = scratch_folder(folder, "a.bin") if kind == "folder" else whole_file(folder / "a.bin")
with write as file:
    if kind == "folder":
        (file / "half").write_bytes(b"half")
    else:
        file.write(b"half")
        file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def aged(path: Path) -> Path:
    """Nobody has written to it, and to what is in it, for more than an hour."""
    then = time.time() - partial.IDLE_SECONDS - 60
    for one in (path, *path.rglob("*")):
        os.utime(one, (then, then), follow_symlinks=False)
    return path


def writer(folder: Path, kind: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path, kind):
    process = writer(tmp_path, kind)
    try:
        (left,) = tmp_path.iterdir()
        aged(left)
        assert leftovers(tmp_path) == []
        with whole_file(tmp_path / "a.bin") as file:
            file.write(b"whole")
        assert left.exists(), "a living writer's was taken"
        assert not remove_leftover(left)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert leftovers(tmp_path) == [left] == leftovers(tmp_path, "a.bin")
    with whole_file(tmp_path / "b.bin"):
        assert left.exists(), "that of another file"
    with whole_file(tmp_path / "a.bin") as file:
        file.write(b"new")
    assert not left.exists()
    assert (tmp_path / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_system_that_gives_everybody_the_lock(tmp_path, monkeypatch, kind):
    """As some network file systems do: what was written just now is a living writer's."""
    monkeypatch.setattr(partial.fcntl, "flock", lambda *_: None)
    left = tmp_path / ".a.01234567.partial"
    if kind == "folder":
        left.mkdir()
        (left / "half").touch()
    else:
        left.touch()
    written = left / "half" if kind == "folder" else left
    aged(left)
    os.utime(written)
    with whole_file(tmp_path / "a"):
        assert leftovers(tmp_path) == []
        assert not remove_leftover(left)
        assert written.exists()
    aged(left)
    with scratch_folder(tmp_path, "a"):
        assert not left.exists()


def test_files_are_locked_by_a_descriptor_for_writing(tmp_path, monkeypatch):
    """NFS makes a write lock of flock's, which a descriptor for reading cannot have."""
    real = fcntl.flock

    def flock(descriptor, how):
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and not fcntl.fcntl(descriptor, fcntl.F_GETFL) & 3:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, how)

    monkeypatch.setattr(partial.fcntl, "flock", flock)
    (tmp_path / ".a.01234567.partial").touch()
    (tmp_path / ".a.01234568.partial").mkdir()
    left = [aged(path) for path in sorted(tmp_path.iterdir())]
    assert leftovers(tmp_path) == left


def test_names_that_are_not_ours_stay(tmp_path):
    others = [
        ".a.bin.partial",
        ".a.bin.0000.partial",
        "a.bin.01234567.partial",
        ".b.a.bin.01234567.partial",
        ".[.00000000.partial",
    ]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".a.bin.76543210.partial").symlink_to(tmp_path / others[0])
    aged(tmp_path)
    with whole_file(tmp_path / "a.bin"), whole_file(tmp_path / "?"):
        pass
    assert {*others, ".a.bin.76543210.partial"} <= {path.name for path in tmp_path.iterdir()}


def test_two_threads_write_one_file(tmp_path):
    """The last one that ends wins; neither takes the other's partial file."""
    both = threading.Barrier(2, timeout=20)

    def write(octets):
        with whole_file(tmp_path / "a") as file:
            file.write(octets)
            both.wait()

    threads = [threading.Thread(target=write, args=(octets,)) for octets in (b"1" * 1000, b"2" * 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in (b"1" * 1000, b"2" * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    (tmp_path / ".a.01234567.partial").touch()
    aged(tmp_path)
    monkeypatch.setattr(partial.fcntl, "flock", refuse)
    with whole_file(tmp_path / "a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert (tmp_path / ".a.01234567.partial").exists(), "it may be somebody's"


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """Somebody removes the first thing in the folder before its writer has the lock -> what was removed."""
    taken = []
    lock = partial._lock

    def late(descriptor, how):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir() if taken[0].is_dir() else taken[0].unlink()
        return lock(descriptor, how)

    monkeypatch.setattr(partial, "_lock", late)
    return taken


def test_somebody_tidies_before_the_lock(tmp_path, taken):
    with whole_file(tmp_path / "a") as file:
        file.write(b"whole")
    assert taken
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_somebody_tidies_a_folder_before_the_lock(tmp_path, taken):
    with scratch_folder(tmp_path, "a") as folder:
        assert folder.is_dir()
        assert folder not in taken


@pytest.mark.parametrize("operation", ["open", "fsync", "replace", "flock"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EINTR])
def test_a_call_that_fails_leaves_the_old_file(tmp_path, monkeypatch, operation, number):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    module = {"fsync": partial.os, "open": partial.os, "replace": Path, "flock": partial.fcntl}[operation]
    with monkeypatch.context() as patch:
        patch.setattr(module, operation, fail)
        if operation == "flock":
            with whole_file(path) as file:
                file.write(b"new")
        else:
            with pytest.raises(OSError, match=os.strerror(number)) as raised, whole_file(path) as file:
                file.write(b"new")
            assert (raised.value.errno, raised.value.filename) == (number, str(path))
    assert path.read_bytes() == (b"new" if operation == "flock" else b"old")
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")

    def fail():
        with whole_file(tmp_path / "a") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_permissions(tmp_path):
    umask = os.umask(0o027)
    try:
        for name, mode in {"a": 0o666, "b": 0o600}.items():
            with whole_file(tmp_path / name, mode):
                pass
    finally:
        os.umask(umask)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o600]


def test_a_scratch_folder_is_gone_after_it(tmp_path):
    def fail():
        with scratch_folder(tmp_path, "work") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "file").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [*tmp_path.iterdir()] == []


def test_what_is_no_ordinary_file(tmp_path):
    with pytest.raises(IsADirectoryError), whole_file(tmp_path):
        pass
    os.mkfifo(tmp_path / "pipe")
    read = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(tmp_path / "pipe") as file:
        file.write(b"through")
    assert os.read(read, 100) == b"through"
    os.close(read)
