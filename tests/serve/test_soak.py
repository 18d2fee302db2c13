"""A short soak; `.ci/long` runs a long one."""

from soak import run


def test_nothing_is_left_of_what_has_gone():
    n_acts, before, after, usage = run(minutes=0.1)
    assert n_acts > 20
    assert after[0] < before[0] + 30, "MiB"
    assert after[1:] <= (before[1], before[2] + 1)
    assert usage < 0.6, "more than the prefix cache may keep"
