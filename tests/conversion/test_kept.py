"""What is kept, and what of it goes."""

import os
import time

import pytest

from nbgpt.backend.kernel_cache import find_object, load_kernels
from nbgpt.conversion.kept import UNUSED_DAYS, everything


@pytest.fixture
def own_home(tmp_path, monkeypatch, home):
    load_kernels("float32")
    kernels = find_object("float32").path.read_bytes()
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    for folder in ("models", "converted", "kernels", "features"):
        (tmp_path / "home" / folder).mkdir(parents=True)
    (tmp_path / "home/kernels/cpu-float32-0.o").write_bytes(kernels)
    return tmp_path / "home"


def aged(path, days):
    path.write_bytes(bytes(1000))
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def test_what_goes(own_home):
    stays = [
        own_home / "kernels/cpu-float32-0.o",
        aged(own_home / "models/mine-int8.safetensors", 1000),
        aged(own_home / "converted/a-int8.safetensors", UNUSED_DAYS - 1),
        aged(own_home / "features/a.float32", 1),
        aged(own_home / "converted/notes.txt", 1000),
    ]
    goes = [
        aged(own_home / "converted/b-int8.safetensors", UNUSED_DAYS + 1),
        aged(own_home / "features/b.float32", UNUSED_DAYS + 1),
        aged(own_home / "models/.mine-int8.safetensors.0123abcd.partial", 1),
        aged(own_home / "kernels/.x.o.0123abcd.partial", 1),
        aged(own_home / "kernels/old.o", 0),
    ]
    scratch = own_home / "models/.calibration.0123abcd.partial"
    scratch.mkdir()
    aged(scratch / "float32.safetensors", 1)
    os.utime(scratch, (0, 0))
    just_written = aged(own_home / "models/.x.0123abcd.partial", 0)
    kept = everything()
    assert {one.path for one in kept if one.useless} == {*goes, scratch}
    assert {one.path for one in kept if not one.useless} == {stays[0], stays[2], stays[3]}
    assert next(one.n_bytes for one in kept if one.path == scratch) >= 1000
    assert all(one.remove() for one in kept if one.useless)
    assert all(path.exists() for path in [*stays, just_written])
    assert not any(path.exists() for path in [*goes, scratch])


def test_nothing_is_kept_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "none"))
    assert everything() == []


def test_what_goes_while_it_is_looked_at(own_home, monkeypatch):
    """Another process tidies too."""
    path = aged(own_home / "converted/a-int8.safetensors", 1)
    lstat = type(path).lstat

    def late(self):
        if self == path:
            self.unlink()
        return lstat(self)

    monkeypatch.setattr(type(path), "lstat", late)
    assert [one.path for one in everything()] == [own_home / "kernels/cpu-float32-0.o"]
    assert not path.exists()
