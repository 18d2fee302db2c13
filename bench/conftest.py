"""What the benchmarks share. Run them by `python -m pytest bench -o addopts= --benchmark-only`, and nothing beside."""

import pytest


@pytest.fixture
def rate(benchmark):
    """Time a call and note how much of something it does a second: rate(call, "GB/s", bytes / 1e9)."""

    def measure(call, unit, amount):
        benchmark.pedantic(call, rounds=7, warmup_rounds=1)
        if benchmark.stats is not None:  # None when benchmarks only run to be kept alive
            benchmark.extra_info[unit] = round(amount / benchmark.stats.stats.median, 2)

    return measure
