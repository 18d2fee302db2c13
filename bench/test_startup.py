"""Each part that bench/startup.py names is there, and they add up."""

from startup import CALLS, MODULES, time_parts, time_totals


def test_parts_add_up():
    time_totals()  # compiles kernels if need be
    parts, totals = time_parts(), time_totals()
    named = {*MODULES.values(), *(part for calls in CALLS.values() for part in calls.values())}
    assert named <= parts.keys()
    assert 0.2 < sum(parts.values()) / totals["first token"] < 5  # this is no time to measure
