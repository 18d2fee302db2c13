"""Where the answers go: shards and a manifest beside the output while it grows, and the output when all is done."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..formats import FormatError
from ..partial import leftovers, remove_leftover, whole_file
from ..strict_json import read_object
from .worker import Finished

_FORMAT = "nbgpt batch"
_LOCK = "lock"
_SHARD = re.compile(r"(\d{8,})(\.errors)?\.jsonl")

Identity = Mapping[str, Any]
"""What must be equal for a run to go on: the job, the model, the input, the shards."""


class Output:
    """The output of a run, from the first shard to the whole file. One run has it at a time.

    Beside a file `answers.jsonl` are `answers.errors.jsonl`, rows that could not be answered, if there are any;
    `answers.manifest.json`; and, until all is done, the folder `answers.parts` with the shards.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a name that does not end as one of JSON lines, OSError if its folder is missing."""
        if path.suffix != ".jsonl":
            raise ValueError(f"--output is {str(path)!r}; the answers are JSON lines: let it end in .jsonl")
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "there is no such folder for the output", str(path.parent))
        self.path = path
        self.errors_path = path.with_suffix(".errors.jsonl")
        self.manifest_path = path.with_suffix(".manifest.json")
        self.parts = path.with_suffix(".parts")
        self.spool = self.parts / "standard-input"
        self.done: set[int] = set()  # numbers of the shards that are finished
        self.n_failed = 0  # rows in these that could not be answered
        self._replaces = False
        self._identity: Identity = {}
        self._numbers = range(0)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs away from the output; the system ends this when the process ends, however it does.

        Raises ValueError if another run has it.
        """
        lock = self._lock()
        try:
            own, names = -1.0, [self.path.name, self.errors_path.name, self.manifest_path.name]
            begun = leftovers(self.parts, idle=own)  # however young: with the lock, nobody else writes them
            begun += [one for name in names for one in leftovers(self.path.parent, name, own)]
            for partial in begun:
                remove_leftover(partial, own)
            yield
        finally:
            self._leave()
            os.close(lock)

    def _leave(self) -> None:
        """Remove the folder of the shards if there are none."""
        if not self._shards():
            self.spool.unlink(missing_ok=True)
            if {part.name for part in self.parts.iterdir()} == {_LOCK}:
                (self.parts / _LOCK).unlink()
                self.parts.rmdir()

    def _lock(self) -> int:
        """The lock as an open file."""
        self.parts.mkdir(exist_ok=True)
        path = self.parts / _LOCK
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_lost = not path.exists() or not os.path.samestat(os.fstat(lock), path.stat())
        except BlockingIOError:
            is_lost = True
        if is_lost:  # another run has it, or has just ended and removed the file
            os.close(lock)
            raise ValueError(f"another run is writing {self.path}: wait for it, or choose another --output")
        return lock

    def refuse_input(self, files: Iterable[Path]) -> None:
        """Raise ValueError if one of these files would be replaced or removed by this run."""
        own = {path.resolve() for path in (self.path, self.errors_path, self.manifest_path)}
        parts = self.parts.resolve()
        for file in files:
            if (found := file.resolve()) in own or found.is_relative_to(parts):
                raise ValueError(f"the input {file} belongs to --output {self.path}; choose another name for it")

    def clear(self) -> None:
        """Forget what an earlier run has done; a finished output stays until another takes its place."""
        self._replaces = True
        for shard in self._shards():
            shard.unlink()
        self.manifest_path.unlink(missing_ok=True)  # last: shards without a manifest would be nobody's

    def _shards(self) -> list[Path]:
        """The shards and their errors, of whatever run."""
        return [part for part in self.parts.iterdir() if _SHARD.fullmatch(part.name)]

    def begin(self, identity: Identity, numbers: range) -> bool:
        """Begin, or go on with what an earlier run of this identity has left -> True if it had come to its end.

        numbers: of the shards of which the output is made.

        Raises ValueError if the output is of another run, naming the difference, or of no run at all.
        """
        self._identity, self._numbers = json.loads(json.dumps(identity)), numbers
        shards = self._shards()
        self.done = {int(shard.stem) for shard in shards if shard.stem.isdecimal()}
        self.n_failed = sum(_n_lines(self._parts_of(number)[1]) for number in self.done)
        if not self.manifest_path.exists():
            there = next((path for path in (self.path, self.errors_path, *shards) if path.exists()), None)
            if there and not self._replaces:
                raise ValueError(f"{there} exists, and has no manifest to go on with: --overwrite replaces it")
            self._note(is_complete=False)
            return False
        earlier = read_object(self.manifest_path)
        if earlier.get("format") != _FORMAT:
            raise FormatError(f"{self.manifest_path} is no manifest of a batch: move it away")
        if found := _difference(earlier.get("identity", {}), self._identity):
            raise ValueError(
                f"{self.path} was begun with {found}: give the same as then, choose another --output, or --overwrite"
            )
        progress = earlier.get("progress")
        if not isinstance(progress, dict) or type(progress.get("failed")) is not int or "is_complete" not in progress:
            raise FormatError(
                f"{self.manifest_path} is damaged: its progress is {progress!r:.80}; --overwrite begins anew"
            )
        if not progress["is_complete"]:
            return False
        if not self.path.exists():
            raise ValueError(f"{self.path} was finished and is gone: --overwrite makes it again")
        self.done, self.n_failed = set(numbers), progress["failed"]
        for shard in shards:  # of a run that was killed just before its end
            shard.unlink()
        return True

    def keep(self, finished: Finished) -> None:
        """Keep a shard: it is on the disk when this returns. Raises OSError."""
        answers, errors = self._parts_of(finished.number)
        if finished.errors:
            with whole_file(errors) as file:
                file.write(finished.errors)
        else:
            errors.unlink(missing_ok=True)  # of a run that was killed between the two files
        with whole_file(answers) as file:
            file.write(finished.lines)
        self.done.add(finished.number)
        self.n_failed += finished.n_failed
        self._note(is_complete=False)

    def join(self) -> None:
        """Make the output of the shards, and the errors file if there are errors; then remove the shards."""
        parts = [self._parts_of(number) for number in self._numbers]
        _concatenate([answers for answers, _ in parts], self.path)
        if errors := [part for _, part in parts if part.exists()]:
            _concatenate(errors, self.errors_path)
        else:
            self.errors_path.unlink(missing_ok=True)
        self._note(is_complete=True)
        for shard in self._shards():
            shard.unlink()

    def _parts_of(self, number: int) -> tuple[Path, Path]:
        return self.parts / f"{number:08}.jsonl", self.parts / f"{number:08}.errors.jsonl"

    def _note(self, is_complete: bool) -> None:
        """Write the manifest."""
        counts = {"shards": len(self._numbers), "done": len(self.done), "failed": self.n_failed}
        progress = {**counts, "is_complete": is_complete}
        manifest = {"format": _FORMAT, "identity": self._identity, "progress": progress}
        with whole_file(self.manifest_path) as file:
            file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def _difference(earlier: Any, now: Any, name: str = "") -> str:
    """Where two identities differ first, in words; "" if they are equal."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        names = [*now, *(key for key in earlier if key not in now)]
        found = (_difference(earlier.get(key), now.get(key), f"{name}.{key}".strip(".")) for key in names)
        return next(filter(None, found), "")
    return "" if earlier == now else f"{name} {_shown(earlier)}, and now it is {_shown(now)}"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!r:.80}"


def _n_lines(path: Path) -> int:
    """Lines of a file; 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _concatenate(parts: list[Path], path: Path) -> None:
    with whole_file(path) as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
