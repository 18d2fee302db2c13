"""The targets of fuzzing are alive: their seeds are read, and one that fails is noticed."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from nbgpt.formats.safetensors import read_header

sys.path.append(str(Path(__file__).parent))  # as for a script
_spec = importlib.util.spec_from_file_location("fuzz_targets", Path(__file__).with_name("targets.py"))
targets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(targets)
harness = sys.modules["harness"]


def test_every_target_has_seeds_and_they_are_small():
    assert {path.name for path in targets.SEEDS.iterdir()} == {*targets.TARGETS}
    assert sum(path.stat().st_size for path in targets.SEEDS.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_a_seed_is_read_to_its_end(name):
    refusals = []
    for path in sorted((targets.SEEDS / name).iterdir()):
        try:
            targets.TARGETS[name](path.read_bytes())
            return
        except harness.DOCUMENTED as error:
            refusals.append(error)
    pytest.fail(f"no seed is read: {refusals}")


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


def test_json_stays_json_when_it_is_mutated():
    data = b'a\0{"a": [1, "b", {"c": null}], "d": 2.5}\0[[], "e"]'
    changed = [targets.mutated(data, seed) for seed in range(300)]
    assert len({*changed}) > 200
    for one in changed:
        first, *documents = one.split(b"\0")
        assert first == b"a"
        assert [type(json.loads(document)) for document in documents] == [dict, list]
    assert targets.mutated(b"no JSON", 1) is None
    assert targets.mutated(b"{no JSON", 1) is None


def test_tensors_follow_their_header():
    header = b'{"__metadata__": {"a": "b"}, "x": {"dtype": "F16", "shape": [2, 3]}, "y": {"dtype": "U8", "shape": [5]}}'
    file = harness.with_tensors(header + b"\0end")
    path = harness.file_of(file, "test.safetensors")
    entries, metadata = read_header(path)
    assert metadata == {"a": "b"}
    assert [(entry.shape, entry.stop - entry.start) for entry in entries.values()] == [((2, 3), 12), ((5,), 5)]
    assert file.endswith(bytes(14) + b"end")
    assert json.loads(harness.header_of(file)) == json.loads(header)
