"""Downloads from a hub on this machine, with every operation on the cache failing in turn, or the process killed at it.

    python tests/soak/downloads.py
    python tests/soak/downloads.py --every 7    # of 120 operations or so

Operations are those that Python's audit events tell of (opening, renaming, linking, making folders, removing) and each
write. Whatever fails: the error is one line, no file of a snapshot is half there, nothing lies outside the cache, and
the next download is whole.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EINTR, errno.EIO)
CONFIG = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 2, "n_ctx": 4, "vocab_size": 7}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "model.safetensors": b"W" * 5000,
}


class Layer:
    """Counts the operations below a folder; at number `fails_at` it acts, once."""

    def __init__(self, folder: Path, fails_at: int, act: Callable[[], None]) -> None:
        self.folder, self.n, self.fails_at, self.act = f"{folder}/", 0, fails_at, act
        sys.addaudithook(self._note)  # for the rest of this process
        self._open = io.open
        builtins.open = io.open = self.open

    def step(self) -> None:
        self.n += 1
        if self.n == self.fails_at:
            self.act()

    def _is_inside(self, path: object) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(self.folder)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and any(map(self._is_inside, arguments[:2])):
            self.step()

    def open(self, path, *arguments, **options):
        file = self._open(path, *arguments, **options)
        if self._is_inside(path) and file.writable():
            return _Written(self, file)
        return file


class _Written:
    """A file of which every write may fail half-way."""

    def __init__(self, layer: Layer, file) -> None:
        self._layer, self._file = layer, file

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data) -> int:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._layer.step()
        return len(data) // 2 + self._file.write(data[len(data) // 2 :])


def child(results, home: Path, fails_at: int, code: int) -> None:
    """Download once -> (number of operations, error or ""). code: of the error; 0: the process is killed instead."""

    def act() -> None:
        if not code:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(code, os.strerror(code))

    from nbgpt.conversion import hub

    os.environ["HF_HOME"] = str(home)
    time.sleep = lambda seconds: None  # between attempts
    layer = Layer(home, fails_at, act)
    try:
        folder, error = hub.fetch("me/tiny"), ""
        layer.fails_at = 0  # what follows is the test's own
        wrong = [name for name, content in FILES.items() if (folder / name).read_bytes() != content]
        assert not wrong, wrong
    except hub.DownloadError as raised:
        error = str(raised)
    results.send((layer.n, error))
    os._exit(0)


def download(home: Path, fails_at: int = 0, code: int = 0) -> tuple[int, str] | None:
    """What a child process says, which has done it; None if it was killed."""
    results, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs, home, fails_at, code))
    process.start()
    theirs.close()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode} at operation {fails_at}"
    return results.recv() if process.exitcode == 0 else None


def check(home: Path) -> None:
    """What is in the folder is in the cache, and the files of a snapshot are whole."""
    outside = [path for path in home.rglob("*") if not path.is_relative_to(home / "hub") and path != home / "hub"]
    assert not outside, outside
    for path in home.glob("hub/*/snapshots/*/*"):
        assert path.read_bytes() == FILES[path.name], path


def at_every_operation(folder: Path, codes: tuple[int, ...], every: int) -> Counter[str]:
    """Let one operation after the other fail -> how often that was an error, was overcome, or killed the process.

    Counted too: the parts of files that huggingface_hub has left after a second download, which was whole.
    """
    found: Counter[str] = Counter()
    for number in range(1, 10_000, every):
        home = folder / str(number)
        home.mkdir()
        first = download(home, number, codes[number % len(codes)])
        check(home)
        second = download(home)
        check(home)
        assert second is not None, number
        assert second[1] == "", (number, second)
        found["parts left"] += len([*home.rglob("*.incomplete")])
        if first is None:
            found["killed"] += 1
            continue
        n, error = first
        assert "\n" not in error
        assert not error or "me/tiny" in error or str(home) in error, error
        found["errors" if error else "overcome"] += 1
        if n < number:
            break
    return found


def main() -> None:
    from hub_server import Hub

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="so many operations are one that fails")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Hub({"me/tiny": FILES}) as hub:
        for name in [*os.environ]:
            if name.startswith("HF_") or name.upper().endswith("_PROXY") or name == "HUGGINGFACE_HUB_CACHE":
                del os.environ[name]
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        import huggingface_hub  # noqa: F401  (once, before the forks)

        from nbgpt.conversion import transfer  # noqa: F401

        for name, codes in {"failing": ERRORS, "killed": (0,)}.items():
            place = Path(folder) / name
            place.mkdir()
            found = at_every_operation(place, codes, options.every)
            print(f"{name}: {', '.join(f'{n} {what}' for what, n in sorted(found.items()))}")


if __name__ == "__main__":
    main()
