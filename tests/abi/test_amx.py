"""AMX is used only where it was asked for, by a CPU that has all of it, and with the system's permission."""

from pathlib import Path

import pytest

from nbgpt.abi import amx
from nbgpt.abi.amx import FEATURES, NEEDED, obstacle

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What the system is asked, and what it answers: nothing against it."""
    questions = []
    monkeypatch.setenv("NBGPT_AMX", "1")
    monkeypatch.setattr(amx, "_refusal", lambda: questions.append("permission") or "")
    return questions


def test_a_cpu_that_has_it(asked):
    assert obstacle(NEEDED) == obstacle(NEEDED | {"amx-fp16"}) == ""
    assert asked


@pytest.mark.parametrize("feature", sorted(NEEDED))
def test_a_cpu_that_lacks_a_part(asked, feature):
    assert obstacle(NEEDED - {feature}) == f"the CPU lacks {feature}"
    assert obstacle(NEEDED - FEATURES - {feature}) == "the CPU has none"
    assert not asked


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_nobody_asked(monkeypatch, asked, value):
    monkeypatch.setenv("NBGPT_AMX", value) if value is not None else monkeypatch.delenv("NBGPT_AMX")
    assert obstacle(NEEDED) == "nobody asked for it (NBGPT_AMX=1)"
    assert not asked


def test_the_system_does_not_allow_it(monkeypatch):
    monkeypatch.setattr(amx, "_refusal", lambda: "Operation not permitted")
    assert obstacle(NEEDED) == "the system does not allow it: Operation not permitted"


def test_the_features_are_those_beside_the_vector_kernels():
    assert FEATURES < NEEDED
    assert all(name.startswith("amx-") for name in FEATURES)


def test_the_system_is_asked_and_its_answer_is_kept(monkeypatch):
    """Where the CPU has no AMX, the answer is no."""
    monkeypatch.undo()
    answer = amx._refusal()
    assert amx._refusal() is answer
    if not CPUINFO.exists() or "amx_tile" not in CPUINFO.read_text():
        assert answer
