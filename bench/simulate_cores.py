"""Prefill and decoding on 1 to 64 cores, predicted from the roofline of one machine and the phases of a pass.

    python bench/simulate_cores.py --measure       # first: speeds of 1 and 2 threads here, into results/cores.json
    python bench/simulate_cores.py                 # results/cores.md and docs/images/cores.svg from them

A pass is a sequence of phases; each has work items that threads claim one by one, as kernels/linear.py and
multi_head.py divide them. An item takes as long as its bytes or its operations do, whichever is more: threads share the
bandwidth, and a thread alone cannot use all of it. A claim costs an atomic addition, which no two threads do at once,
and a phase ends with a barrier. Three numbers are fitted to one thread's measurements: operations a second of a core in
prefill (by pp512) and with few rows, whose tiles are smaller (by tg128 b8), and bytes a second (by tg128). The
measurements of two threads check the rest, with the bandwidth that was found beside each: neighbours on the same host
halve it for minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import line_chart
from peer_engines.machine import busy, machine

from nbgpt.abi.layout import (
    FEW_ROWS,
    FLOATS,
    GROUP,
    HEAD_DTYPE,
    LANES,
    LOGIT_PLANES,
    PAGE,
    PANELS,
    QUERY_TILE,
    ROW_TILE,
    SPAN_PAGES,
    ceil_div,
    padded,
)
from nbgpt.config import OFFICIAL, GPT2Config
from nbgpt.kernels.matmul import HEAD_MATMULS

REPOSITORY = Path(__file__).parents[1]
THREADS = (1, 2, 4, 8, 16, 32, 64)
DTYPES = ("float32", "int8")
BUSY = 0.1  # the share of a machine that others may use
_CACHED = 400_000  # of kernels/linear.py
_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1 + 2 / 64, "int4": 0.5 + 4 / 32}  # of a weight


@dataclass(frozen=True)
class Machine:
    """What a machine's cores share, and what it costs them to agree on something."""

    name: str
    memory_gb_s: float  # that all cores together can read
    core_gb_s: float  # that one core alone can read
    core_gflop_s: float  # of one core in the matmuls of a prefill, when it is alone
    few_rows_gflop_s: float  # the same, of rows that fill less than a row tile
    all_core_clock: float  # clock with all cores at work, as a share of that of one
    line_transfer_s: float  # until a cache line that another core wrote last has arrived
    alone_s: float  # of a pass, in which one thread works: the call, a step's share of Python, drawing an id


@dataclass(frozen=True)
class Assumed:
    """What is taken for granted about a server of 64 cores. Sources are in the table of the report."""

    memory_gb_s: float = 250.0
    all_core_clock: float = 0.8
    line_transfer_s: float = 60e-9
    alone_s: float = 50e-6


SOURCES = {
    "memory_gb_s": "assumption: 80 % of eight channels of DDR5-4800, 307 GB/s, as STREAM reaches on such machines",
    "all_core_clock": "assumption: all-core clock by boost clock of server CPUs, 0.75 to 0.85",
    "line_transfer_s": "assumption: 40 to 100 ns from core to core on one die of today's servers",
    "alone_s": "bench/NOTES.md: 20 us of Python a call, and a draw among 50257 logits",
}


@dataclass(frozen=True)
class Phase:
    """A parallel loop: how many items, and what one of them reads from memory and computes."""

    n_items: int
    bytes_an_item: float
    flop_an_item: float


@dataclass(frozen=True)
class Pass:
    """Rows that are read together: `rows` of them, each after `depth` positions, with logits for `n_logits`."""

    rows: int
    depth: float
    n_logits: int


def phases(config: GPT2Config, dtype: str, work: Pass, threads: int) -> Iterator[Phase]:
    """The phases of a forward pass, with the items into which the kernels divide them."""
    embd, inner = config.n_embd, config.n_inner
    for _ in range(config.n_layer):
        yield from _linear(dtype, 1, work.rows, embd, 3 * embd, threads)
        yield _attention(config, work)
        yield from _linear(dtype, 1, work.rows, embd, embd, threads)
        yield from _linear(dtype, 1, work.rows, embd, inner, threads)
        yield from _linear(dtype, 1, work.rows, inner, embd, threads)
    if work.n_logits:
        head = HEAD_DTYPE[dtype]
        yield from _linear(head, LOGIT_PLANES[head], work.n_logits, embd, config.n_vocab, threads)


def _linear(dtype: str, planes: int, rows: int, n_in: int, n_out: int, threads: int) -> Iterator[Phase]:
    """Pack the rows, unless they are few; multiply them. Sizes of items as in kernels/linear.py."""
    height = HEAD_MATMULS[dtype].height
    tiles = ceil_div(rows * planes, height)
    if rows > FEW_ROWS:
        yield Phase(tiles, 0, 20.0 * rows * n_in / tiles)  # about 20 operations a number: LayerNorm, rounding
    value_bytes = 4 if dtype in FLOATS else 1
    tiles_an_item = max(1, _CACHED // (height * padded(n_in, GROUP[dtype]) * value_bytes))
    pairs = ceil_div(n_out, LANES * PANELS)
    pairs_an_item = max(1, min(4, pairs // (8 * threads)))
    across, down = ceil_div(pairs, pairs_an_item), ceil_div(tiles, tiles_an_item)
    n_items = across * down
    weights = n_in * n_out * _BYTES[dtype]
    yield Phase(n_items, weights / across, 2.0 * planes * rows * n_in * n_out / n_items)


def _attention(config: GPT2Config, work: Pass) -> Phase:
    if work.rows <= FEW_ROWS:
        n_items = work.rows * config.n_head * ceil_div(int(work.depth) + 1, SPAN_PAGES * PAGE)
    else:
        n_items = ceil_div(work.rows, QUERY_TILE) * config.n_head
    is_prompt = work.rows > 16
    read = 0.0 if is_prompt else 8.0 * config.n_embd * work.depth * work.rows  # a prompt's own keys are in the cache
    return Phase(n_items, read / n_items, 4.0 * config.n_embd * work.depth * work.rows / n_items)


def seconds_of(phase: Phase, on: Machine, threads: int) -> float:
    """Of one phase: full rounds of items, then a round of what is left, then the barrier."""
    rounds, rest = divmod(phase.n_items, threads)
    working = rounds * _round(phase, on, threads, threads) + (_round(phase, on, rest, threads) if rest else 0.0)
    if threads == 1:
        return working
    claims = 2 * phase.n_items * on.line_transfer_s  # one claim and one notice of completion an item, one at a time
    barrier = 2 * on.line_transfer_s + threads * on.line_transfer_s / 8  # the last write, and everybody reads it
    return max(working, claims) + barrier


def _round(phase: Phase, on: Machine, active: int, threads: int) -> float:
    clock = on.all_core_clock if threads > 2 else 1.0
    reading = phase.bytes_an_item / (min(on.core_gb_s, on.memory_gb_s / active) * 1e9)
    computing = phase.flop_an_item / (on.core_gflop_s * clock * 1e9)
    return max(reading, computing)


def pass_seconds(config: GPT2Config, dtype: str, work: Pass, on: Machine, threads: int) -> float:
    """Seconds of a forward pass."""
    if work.rows < ROW_TILE:
        on = replace(on, core_gflop_s=on.few_rows_gflop_s)
    return on.alone_s + sum(seconds_of(phase, on, threads) for phase in phases(config, dtype, work, threads))


# --- What was measured, and what follows from it ----------------------------------------------------------------------

TESTS = {"pp512": Pass(512, 256.5, 0), "tg128": Pass(1, 64.5, 1), "tg128 b8": Pass(8, 64.5, 8)}
TOKENS = {"pp512": 512, "tg128": 1, "tg128 b8": 8}


def fitted(config: GPT2Config, dtype: str, rows: list[dict[str, Any]], assumed: Assumed) -> Machine:
    """This machine, from the measurements of one thread."""
    one = {row["test"]: row for row in rows if row["dtype"] == dtype and row["threads"] == 1}
    here = Machine(
        name="here",
        memory_gb_s=max(row["read_gb_s"] for row in rows),
        core_gb_s=one["tg128"]["read_gb_s"],
        core_gflop_s=one["pp512"]["fma_gflop_s"],
        few_rows_gflop_s=one["pp512"]["fma_gflop_s"],
        all_core_clock=1.0,
        line_transfer_s=assumed.line_transfer_s,
        alone_s=assumed.alone_s,
    )
    fields = {"pp512": "core_gflop_s", "tg128": "core_gb_s", "tg128 b8": "few_rows_gflop_s"}
    for _ in range(30):  # each test depends a little on the others' numbers
        for test, field in fields.items():
            ratio = one[test]["tokens_s"] / speed(config, dtype, test, here, 1)
            here = replace(here, **{field: getattr(here, field) * ratio})
    return here


def server(here: Machine, assumed: Assumed) -> Machine:
    """Cores like those here in a machine with more of them."""
    return replace(here, name="server", **asdict(assumed))


def speed(config: GPT2Config, dtype: str, test: str, on: Machine, threads: int) -> float:
    """Tokens a second."""
    return TOKENS[test] / pass_seconds(config, dtype, TESTS[test], on, threads)


def measure(output: Path, repetitions: int) -> None:
    """Speeds of 1 and 2 threads with random weights of 124M, and the roofline beside each."""
    from nbgpt.analysis import benchmark

    others, rows = busy(), []
    tests = [benchmark.Test(n_prompt=512), benchmark.Test(n_gen=128), benchmark.Test(n_gen=128, n_sequences=8)]
    for dtype in DTYPES:
        for row in benchmark.run(benchmark.random_weights("124M", dtype), tests, [1, 2], repetitions):
            print(f"{dtype}, {row.n_threads} threads, {row.test}", file=sys.stderr)
            limits = (row.before, row.after)
            rows.append(
                {
                    **{"dtype": dtype, "threads": row.n_threads, "test": str(row.test)},
                    "tokens_s": round(sorted(row.speeds)[len(row.speeds) // 2], 1),
                    "read_gb_s": round(max(one.read_gb_s for one in limits), 1),
                    "fma_gflop_s": round(max(one.fma_gflop_s for one in limits), 1),
                }
            )
    found = {"machine": machine(), "date": str(date.today()), "busy": round(max(others, busy()), 3), "rows": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")


# --- The report -------------------------------------------------------------------------------------------------------


def report(measured: dict[str, Any], assumed: Assumed) -> str:
    """Markdown: inputs, the check against two threads, the predictions, and what limits them."""
    config, rows = OFFICIAL["gpt2"], measured["rows"]
    lines = [
        "# Many cores, predicted",
        "",
        "Made by `python bench/simulate_cores.py`; how it counts is said there.",
        "",
    ]
    if measured["busy"] > BUSY:
        lines += [f"**Measured while others used {measured['busy']:.0%} of the machine; measure again.**", ""]
    lines += ["## Inputs", "", "| input | value | source |", "|---|---|---|"]
    lines += [f"| {name} | {value:g} | {SOURCES[name]} |" for name, value in asdict(assumed).items()]
    for dtype in DTYPES:
        here = fitted(config, dtype, rows, assumed)
        source = f"fitted to 1 thread here ({measured['machine']['processor']}, {measured['date']})"
        lines += [
            f"| {dtype}: core_gb_s | {here.core_gb_s:.1f} | {source} |",
            f"| {dtype}: core_gflop_s | {here.core_gflop_s:.0f} | {source} |",
            f"| {dtype}: few_rows_gflop_s | {here.few_rows_gflop_s:.0f} | {source} |",
        ]
    lines += ["", "## Two threads: predicted beside measured", ""]
    lines += [
        "| weights | test | GB/s then | 1 thread, measured | 2 threads, predicted | measured | predicted / measured |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _checked(config, rows, assumed)]
    lines += ["", "## 124M on a server, tokens a second (a core, as a share of one core alone)", ""]
    lines += [f"| weights | test | {' | '.join(f'{n} cores' for n in THREADS)} |", f"|{'---|' * (2 + len(THREADS))}"]
    for dtype in DTYPES:
        on = server(fitted(config, dtype, rows, assumed), assumed)
        for test in TESTS:
            speeds = [speed(config, dtype, test, on, n) for n in THREADS]
            cells = [f"{one:.0f} ({one / n / speeds[0]:.0%})" for n, one in zip(THREADS, speeds, strict=True)]
            lines.append(f"| {dtype} | {test} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_limits(config, assumed, rows)])


def _checked(config: GPT2Config, rows: list[dict[str, Any]], assumed: Assumed) -> Iterator[list[str]]:
    measured = {(row["dtype"], row["test"], row["threads"]): row["tokens_s"] for row in rows}
    bandwidth = {(row["dtype"], row["test"]): row["read_gb_s"] for row in rows if row["threads"] == 2}
    for dtype in DTYPES:
        here = fitted(config, dtype, rows, assumed)
        for test in TESTS:
            one, two = measured[dtype, test, 1], measured[dtype, test, 2]
            memory = bandwidth[dtype, test]
            predicted = speed(config, dtype, test, replace(here, memory_gb_s=memory), 2)
            cells = [f"{memory:.0f}", f"{one:.0f}", f"{predicted:.0f}", f"{two:.0f}", f"{predicted / two:.2f}"]
            yield [dtype, test, *cells]


def _limits(config: GPT2Config, assumed: Assumed, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Of a decode step of int8 with 64 threads: items, and where its time goes."""
    on = server(fitted(config, "int8", rows, assumed), assumed)
    work, threads = TESTS["tg128"], THREADS[-1]
    whole = pass_seconds(config, "int8", work, on, threads)
    free = pass_seconds(config, "int8", work, replace(on, line_transfer_s=0.0), threads)
    endless = pass_seconds(config, "int8", work, replace(on, memory_gb_s=1e6), threads)
    saturating = on.memory_gb_s / on.core_gb_s
    yield f"## One step of tg128, int8, with {threads} threads"
    yield ""
    items = [phase.n_items for phase in phases(config, "int8", work, threads)]
    yield (
        f"A layer's phases have {', '.join(map(str, items[:5]))} items, the LM head {items[-1]}. "
        f"{saturating:.0f} threads saturate the memory, so a phase with more items than that is divided finely enough, "
        f"and one with fewer than {threads} leaves threads idle that could not read anything."
    )
    yield ""
    yield (
        f"The step takes {1e3 * whole:.2f} ms; without the time that cache lines take from core to core "
        f"{1e3 * free:.2f} ms, with memory of any speed {1e3 * endless:.2f} ms."
    )
    yield ""


def picture(measured: dict[str, Any], assumed: Assumed) -> str:
    """Tokens a second and core by cores, for prefill and decoding, and what was measured here."""
    config, rows, panels = OFFICIAL["gpt2"], measured["rows"], []
    for test in ("pp512", "tg128", "tg128 b8"):
        lines = {}
        for dtype in DTYPES:
            on = server(fitted(config, dtype, rows, assumed), assumed)
            lines[f"{dtype}, predicted"] = [(n, speed(config, dtype, test, on, n) / n) for n in THREADS]
            own = [row for row in rows if row["dtype"] == dtype and row["test"] == test]
            lines[f"measured, {dtype}"] = [(row["threads"], row["tokens_s"] / row["threads"]) for row in own]
        panels.append(line_chart.Panel(f"124M, {test}", "cores of a worker", "tokens/s a core", lines))
    return line_chart.svg(panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure 1 and 2 threads here first")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement; default: %(default)s")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench/results", help="default: %(default)s")
    parser.add_argument("--images", type=Path, default=REPOSITORY / "docs/images", help="default: %(default)s")
    options = parser.parse_args()
    file = options.results / "cores.json"
    if options.measure:
        measure(file, options.repetitions)
    if not file.exists():
        parser.error(f"{file} is missing: --measure makes it")
    measured = json.loads(file.read_text())
    (options.results / "cores.md").write_text(report(measured, Assumed()))
    (options.images / "cores.svg").write_text(picture(measured, Assumed()))


if __name__ == "__main__":
    main()
