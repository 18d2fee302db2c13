"""The targets of fuzzing are alive: their seeds are read, and one that fails is noticed."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("fuzz_targets", Path(__file__).with_name("targets.py"))
targets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(targets)


def test_every_target_has_seeds_and_they_are_small():
    assert {path.name for path in targets.SEEDS.iterdir()} == {*targets.TARGETS}
    assert sum(path.stat().st_size for path in targets.SEEDS.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_seeds_and_their_neighbours(name, rng):
    """A few hundred mutations without a guide, for those who have no atheris."""
    for path in sorted((targets.SEEDS / name).iterdir()):
        seed = path.read_bytes()
        targets.run(name, seed)
        for _ in range(40):
            data = bytearray(seed)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 1 << rng.integers(8)])
            targets.run(name, bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))


def test_another_error_is_noticed(monkeypatch):
    def stumble(data):
        raise KeyError(data)

    monkeypatch.setitem(targets.TARGETS, "json_reader", stumble)
    with pytest.raises(KeyError):
        targets.run("json_reader", b"")
