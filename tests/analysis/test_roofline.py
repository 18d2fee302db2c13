"""The roofline, with a probe that takes as long as the test says."""

from types import SimpleNamespace

import pytest

from nbgpt.abi.job import PROBE_FLOATS, PROBE_READ
from nbgpt.analysis import roofline
from nbgpt.analysis.roofline import Roofline, measure_roofline


def test_bandwidth_is_the_best_of_seven_readings_of_512_mib(monkeypatch):
    clock, seconds, readings = SimpleNamespace(now=0.0), iter([9, 8, 2, 8, 7, 9, 9, *[4] * 7]), []
    monkeypatch.setattr(roofline, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def probe(kind, items, data):
        clock.now += next(seconds)
        if kind == PROBE_READ:
            readings.append((data.ctypes.data % 64, items * PROBE_FLOATS * data.itemsize, data.nbytes))

    model = SimpleNamespace(probe=probe, probe_flop=1e9, thread_pool=SimpleNamespace(n_threads=3))
    found = measure_roofline(model)
    assert readings == [(0, 512 << 20, 512 << 20)] * 7
    assert found == Roofline(pytest.approx((512 << 20) / 2 / 1e9), pytest.approx(3 * 64 / 4))
