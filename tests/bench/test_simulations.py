"""The simulations beside closed forms, and that they say the same again."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nbgpt.config import OFFICIAL

BENCH = Path(__file__).parents[2] / "bench"
CONFIG = OFFICIAL["gpt2"]


@pytest.fixture(autouse=True)
def bench_first(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def cores():
    import simulate_cores

    return simulate_cores


@pytest.fixture
def cluster():
    import simulate_cluster

    return simulate_cluster


def machine(cores, **changes):
    speeds = {"memory_gb_s": 1e9, "core_gb_s": 10.0, "core_gflop_s": 100.0, "few_rows_gflop_s": 50.0}
    free = {"all_core_clock": 1.0, "line_transfer_s": 0.0, "alone_s": 0.0}
    return cores.Machine(**{"name": "made up", **speeds, **free, **changes})


# --- Cores ------------------------------------------------------------------------------------------------------------


def test_one_thread_reads_all_weights_once(cores):
    """A step of one text is its bytes by the bandwidth, if computing costs nothing."""
    on = machine(cores, few_rows_gflop_s=1e9)
    found = cores.pass_seconds(CONFIG, "float32", cores.Pass(1, 0.0, 1), on, 1)
    weights = CONFIG.n_layer * 12 * CONFIG.n_embd**2 + CONFIG.n_vocab * CONFIG.n_embd
    assert found == pytest.approx(4 * weights / 10e9, rel=1e-3)


def test_a_prompt_takes_its_operations(cores):
    on = machine(cores, core_gb_s=1e9)
    work = cores.Pass(480, 0.0, 0)
    found = cores.pass_seconds(CONFIG, "float32", work, on, 1)
    assert found == pytest.approx(2 * 480 * CONFIG.n_layer * 12 * CONFIG.n_embd**2 / 100e9, rel=0.01)


def test_items_are_rounds(cores):
    phase = cores.Phase(n_items=10, bytes_an_item=1e9, flop_an_item=0)
    assert cores.seconds_of(phase, machine(cores), 1) == pytest.approx(1.0)
    assert cores.seconds_of(phase, machine(cores), 4) == pytest.approx(0.3)  # 4, 4 and 2 items of 0.1 s
    assert cores.seconds_of(phase, machine(cores, memory_gb_s=20.0), 4) == pytest.approx(0.2 + 0.2 + 0.1)


def test_claims_and_barriers_cost(cores):
    phase, on = cores.Phase(1000, 0, 1.0), machine(cores, line_transfer_s=1e-7)
    assert cores.seconds_of(phase, on, 64) >= 2000 * 1e-7
    assert cores.seconds_of(phase, on, 1) < 1e-7


def test_the_fit_gives_back_what_was_measured(cores):
    rows = [
        {"dtype": "int8", "threads": n, "test": test, "tokens_s": speed * n, "read_gb_s": 25.0 * n, "fma_gflop_s": 300}
        for n in (1, 2)
        for test, speed in (("pp512", 3000.0), ("tg128", 160.0), ("tg128 b8", 1000.0))
    ]
    here = cores.fitted(CONFIG, "int8", rows, cores.Assumed())
    for test, speed in (("pp512", 3000), ("tg128", 160), ("tg128 b8", 1000)):
        assert cores.speed(CONFIG, "int8", test, here, 1) == pytest.approx(speed, rel=1e-3)


def test_the_report_says_that_the_machine_was_busy(cores):
    rows = [
        {"dtype": dtype, "threads": n, "test": test, "tokens_s": speed * n, "read_gb_s": 25.0 * n, "fma_gflop_s": 300}
        for dtype in cores.DTYPES
        for n in (1, 2)
        for test, speed in (("pp512", 1500.0), ("tg128", 40.0), ("tg128 b8", 300.0))
    ]
    measured = {"machine": {"processor": "P"}, "date": "D", "busy": 0.5, "rows": rows}
    assert "while others used 50% of the machine" in cores.report(measured, cores.Assumed())
    assert "while others" not in cores.report({**measured, "busy": 0.0}, cores.Assumed())
    assert cores.picture(measured, cores.Assumed()).count("<polyline") == 6


# --- Clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def calm(cluster):
    """Inputs under which nothing ever goes wrong and nothing takes time but the rows."""
    quiet = {"start_sigma": 0.0, "dispatch_s": 0.0, "block_s": 0.0, "speed_sigma": 0.0, "straggler_share": 0.0}
    return replace(cluster.Inputs(), rows=10_000, **quiet, failures_a_day=1e-9)


@pytest.fixture
def rates(cluster):
    return cluster.Rates(prompt=1e4, new=5e3, one_text=math.inf)


def test_nothing_goes_wrong(cluster, calm, rates):
    """The time is that of the start and of the rows, divided among the workers."""
    found = cluster.simulate(calm, rates, 2, 10, copies=False)
    assert found.n_failures == found.n_copies == 0
    assert found.seconds == pytest.approx(90 + found.ideal_s, rel=0.02)
    assert found.tail_s < 5
    assert found.node_hours == pytest.approx(2 * found.seconds / 3600)


def test_stragglers_cost_a_tail_and_copies_shorten_it(cluster, calm, rates):
    slow = replace(calm, straggler_share=0.2, straggler_speed=0.1)
    alone, copied = (cluster.simulate(slow, rates, 20, 100, copies=copies) for copies in (False, True))
    assert copied.n_copies > 0
    assert copied.tail_s < 0.7 * alone.tail_s
    assert copied.efficiency > alone.efficiency


def test_failures_cost_blocks_and_all_is_done(cluster, calm, rates):
    frail = replace(calm, rows=100_000, failures_a_day=200.0)
    found = cluster.simulate(frail, rates, 4, 1000, copies=False)
    safe = cluster.simulate(replace(frail, failures_a_day=1e-9), rates, 4, 1000, copies=False)
    assert found.n_failures > 0
    assert found.seconds > safe.seconds


def test_one_driver_is_the_limit_of_tiny_blocks(cluster, calm, rates):
    slow = replace(calm, dispatch_s=0.05)
    assert cluster.simulate(slow, rates, 100, 1, copies=False).seconds >= 10_000 * 0.05


def test_the_same_seed_gives_the_same_figures(cluster, rates):
    inputs = replace(cluster.Inputs(), rows=50_000)
    runs = [cluster.simulate(inputs, rates, 10, 100, copies=True, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_every_input_has_a_source(cluster):
    assert all(one.metadata["source"] for one in fields(cluster.Inputs))
