"""A file of 10^8 rows on 1 to 1,000 nodes: efficiency, tail and cost, by a simulation of blocks, workers and failures.

    python bench/simulate_cluster.py       # results/cluster.md and docs/images/cluster.svg, from results/cores.json

Each node runs a worker on each of its NUMA nodes, with a speed of its own. One driver hands out blocks of rows, one
after another, to whichever worker is free, as Ray Data does with actors. A block's work is the sum of its rows' tokens,
and its last rows leave the worker's batch half empty (`drain`). A node that fails loses its blocks under way, which
others repeat, and comes back later. When no blocks are left, idle workers may start copies of those that would end
last. The same seed gives the same figures. What is not modelled: the network and the disks, beyond a block's delay.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections import deque
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import line_chart
import numpy as np
from simulate_cores import BUSY, Assumed, Pass, fitted, pass_seconds, server
from tqdm import tqdm

from nbgpt.config import OFFICIAL

REPOSITORY = Path(__file__).parents[1]
NODES = (1, 3, 10, 30, 100, 300, 1000)
SHOWN = (1, 10, 100, 1000)  # in the table
BLOCKS = (1_000, 10_000, 100_000)
TINY = 100
"""Rows of a block with which the driver is what limits the largest cluster."""
DAY = 86_400.0


def _input(default: float, source: str) -> Any:
    return field(default=default, metadata={"source": source})


@dataclass(frozen=True)
class Inputs:
    """What the simulation takes for granted; every field says where it is from."""

    rows: int = _input(10**8, "assumption: a large file")
    prompt_median: float = _input(120, "assumption: tokens of a prompt, log-normal")
    prompt_sigma: float = _input(0.8, "assumption: of its logarithm; 1 % of the prompts have 6 times the median")
    new_median: float = _input(60, "assumption: new tokens of a row, log-normal")
    new_sigma: float = _input(1.0, "assumption: of its logarithm; 1 % of the rows have 10 times the median")
    most_tokens: float = _input(1024, "GPT-2's context: prompt and new tokens together")
    cores_a_worker: int = _input(32, "assumption: a NUMA node of a server of 64 cores")
    workers_a_node: int = _input(2, "assumption: NUMA nodes of a server")
    batch: int = _input(64, "texts that a worker decodes together")
    start_median_s: float = _input(90, "assumption: from asking for a node to its first block (machine, image, Ray)")
    start_sigma: float = _input(0.4, "assumption: of its logarithm; the last of 1,000 nodes takes 3.5 times the median")
    dispatch_s: float = _input(0.001, "assumption: the driver's time for a block; Ray starts 10^3 tasks a second")
    block_s: float = _input(0.2, "assumption: to fetch, decode, encode and store a block, not overlapped")
    speed_sigma: float = _input(0.05, "assumption: speeds of nodes of one type differ so much (log-normal)")
    straggler_share: float = _input(0.01, "assumption: nodes with a neighbour or a fault (Dean and Barroso 2013)")
    straggler_speed: float = _input(0.4, "assumption: their speed")
    failures_a_day: float = _input(0.25, "assumption: of a node; interruptions of spot machines, under 5 % in 5 hours")
    replacement_s: float = _input(180, "assumption: until a failed node is asked for again")
    node_price: float = _input(2.5, "assumption: US dollars an hour of a server of 64 cores, on demand")


@dataclass(frozen=True)
class Rates:
    """Of one worker: tokens a second."""

    prompt: float
    new: float  # all texts of its batch
    one_text: float  # a text that is left alone


@dataclass(frozen=True)
class Outcome:
    """What a run took."""

    seconds: float  # from asking for the nodes to the last row
    ideal_s: float  # of the same tokens, if no worker ever waited, failed or straggled
    tail_s: float  # from the first worker without a block to the last row
    n_failures: int
    n_copies: int
    tokens: float  # of all rows, prompts included
    node_hours: float

    @property
    def efficiency(self) -> float:
        return self.ideal_s / self.seconds


@dataclass(frozen=True)
class Rows:
    """Moments of the rows' work, for a worker."""

    mean_s: float  # of a row's share of a busy worker
    deviation_s: float
    drain_s: float  # of a block: its last rows leave the batch half empty
    tokens: float  # mean of a row


def rows_of(inputs: Inputs, rates: Rates, seed: int = 0) -> Rows:
    """Draws 200,000 rows."""
    random, n = np.random.default_rng(seed), 200_000
    prompt = np.minimum(
        random.lognormal(math.log(inputs.prompt_median), inputs.prompt_sigma, n), inputs.most_tokens - 1
    )
    new = random.lognormal(math.log(inputs.new_median), inputs.new_sigma, n)
    new = np.minimum(new, inputs.most_tokens - prompt)
    seconds = prompt / rates.prompt + new / rates.new
    drain = 0.5 * float(new.mean()) / rates.one_text  # long rows go first, so about a mean row is left at the end
    return Rows(float(seconds.mean()), float(seconds.std()), drain, float((prompt + new).mean()))


class Node:
    """A machine: its speed, and when it fails."""

    def __init__(self, inputs: Inputs, random: np.random.Generator) -> None:
        self.inputs, self.random = inputs, random
        self.healthy_speed = random.lognormal(0, inputs.speed_sigma)
        is_straggler = random.random() < inputs.straggler_share
        self.speed = self.healthy_speed * (inputs.straggler_speed if is_straggler else 1.0)
        self.up, self.down = 0.0, 0.0  # the period in which it runs
        self.n_failures = -1
        self.restart(0.0)

    def restart(self, asked: float) -> None:
        """Start at a time, run until the next failure."""
        self.n_failures += 1
        start = self.random.lognormal(math.log(self.inputs.start_median_s), self.inputs.start_sigma)
        self.up = asked + start
        self.down = self.up + self.random.exponential(DAY / self.inputs.failures_a_day)

    def ready(self, now: float) -> float:
        """The first time from `now` on at which it runs."""
        while self.down <= now:
            self.restart(self.down + self.inputs.replacement_s)
        return max(now, self.up)


class Run:
    """One file on some nodes."""

    def __init__(self, inputs: Inputs, rates: Rates, n_nodes: int, block_rows: int, copies: bool, seed: int) -> None:
        self.inputs, self.block_rows, self.copies, self.seed = inputs, block_rows, copies, seed
        self.rows = rows_of(inputs, rates)
        self.nodes = [Node(inputs, np.random.default_rng([seed, node])) for node in range(n_nodes)]
        self.workers = [node for node in self.nodes for _ in range(inputs.workers_a_node)]
        self.n_blocks = math.ceil(inputs.rows / block_rows)
        self.work = self._work_of_blocks()
        self.waiting = deque(range(self.n_blocks))
        self.running: dict[int, list[tuple[float, int]]] = {}  # block -> (end, worker) of each copy
        self.current: dict[int, int] = {}  # worker -> its event's number; an older event no longer counts
        self.events: list[tuple[float, int, int, int | None, bool]] = []  # time, number, worker, block, has it failed
        self.n_events, self.driver_free, self.n_copies = 0, 0.0, 0
        self.first_idle, self.end, self.n_done = math.inf, 0.0, 0
        self.idle: list[int] = []

    def _work_of_blocks(self) -> np.ndarray:
        """Seconds of each block on an average worker; a sum of many rows is nearly normal."""
        mean, deviation = self.rows.mean_s * self.block_rows, self.rows.deviation_s * math.sqrt(self.block_rows)
        drawn = np.random.default_rng([self.seed, self.block_rows]).normal(mean, deviation, self.n_blocks)
        last = self.inputs.rows - (self.n_blocks - 1) * self.block_rows
        drawn[-1] *= last / self.block_rows
        return np.maximum(drawn, 0.1 * mean * (last / self.block_rows if self.n_blocks == 1 else 1)) + self.rows.drain_s

    def outcome(self) -> Outcome:
        """Simulate until the last block is done."""
        for worker, node in enumerate(self.workers):
            self._push(node.up, worker, None, has_failed=False)
        while self.n_done < self.n_blocks:
            time, number, worker, block, has_failed = heapq.heappop(self.events)
            if self.current.get(worker) == number:
                if block is not None:
                    self._ended(time, worker, block, has_failed)
                self._next(time, worker)
        total = float(self.rows.mean_s * self.inputs.rows)
        hours = len(self.nodes) * self.end / 3600
        return Outcome(
            self.end,
            total / sum(node.healthy_speed for node in self.workers),
            self.end - min(self.first_idle, self.end),
            sum(node.n_failures for node in self.nodes),
            self.n_copies,
            self.rows.tokens * self.inputs.rows,
            hours,
        )

    def _push(self, time: float, worker: int, block: int | None, *, has_failed: bool) -> None:
        self.n_events += 1
        self.current[worker] = self.n_events
        heapq.heappush(self.events, (time, self.n_events, worker, block, has_failed))

    def _ended(self, time: float, worker: int, block: int, has_failed: bool) -> None:
        copies = self.running[block]
        copies[:] = [one for one in copies if one[1] != worker]
        if has_failed:
            if not copies:
                del self.running[block]
                self.waiting.appendleft(block)
                if self.idle:
                    self._push(time, self.idle.pop(), None, has_failed=False)
            return
        for _, other in copies:  # the slower copy stops
            self._push(time, other, None, has_failed=False)
        del self.running[block]
        self.n_done += 1
        self.end = time

    def _next(self, time: float, worker: int) -> None:
        """Give a free worker a block, or a copy of one; else it is idle, until a block comes back."""
        start = self.workers[worker].ready(time)
        if start > time:
            self._push(start, worker, None, has_failed=False)
        elif self.waiting:
            self._start(time, worker, self.waiting.popleft())
        else:
            self.first_idle = min(self.first_idle, time)
            if (block := self._worth_a_copy(time, worker)) is not None:
                self.n_copies += 1
                self._start(time, worker, block)
            else:
                self.idle.append(worker)

    def _worth_a_copy(self, time: float, worker: int) -> int | None:
        """The block that would end last, if this worker can end it sooner and it has no copy yet."""
        if not self.copies:
            return None
        alone = [(copies[0][0], block) for block, copies in self.running.items() if len(copies) == 1]
        end, block = max(alone, default=(0.0, None))
        return block if block is not None and time + self._seconds(worker, block) < end else None

    def _seconds(self, worker: int, block: int) -> float:
        return float(self.work[block]) / self.workers[worker].speed + self.inputs.block_s

    def _start(self, time: float, worker: int, block: int) -> None:
        self.driver_free = max(self.driver_free, time) + self.inputs.dispatch_s
        end, down = self.driver_free + self._seconds(worker, block), self.workers[worker].down
        self.running.setdefault(block, []).append((end, worker))
        self._push(min(end, down), worker, block, has_failed=down < end)


def rates_of(measured: dict[str, Any], inputs: Inputs) -> Rates:
    """Of a worker: 124M int8 on so many cores, as bench/simulate_cores.py predicts from the measurements here."""
    config, assumed = OFFICIAL["gpt2"], Assumed()
    whole = server(fitted(config, "int8", measured["rows"], assumed), assumed)
    on = replace(whole, memory_gb_s=whole.memory_gb_s / inputs.workers_a_node)  # a NUMA node has its own channels

    def tokens_s(work: Pass) -> float:
        return work.rows / pass_seconds(config, "int8", work, on, inputs.cores_a_worker)

    depth = inputs.prompt_median + inputs.new_median / 2
    batch = tokens_s(Pass(inputs.batch, depth, inputs.batch))
    return Rates(tokens_s(Pass(512, inputs.prompt_median / 2, 0)), batch, tokens_s(Pass(1, depth, 1)))


def simulate(inputs: Inputs, rates: Rates, n_nodes: int, block_rows: int, *, copies: bool, seed: int = 0) -> Outcome:
    """A file on some nodes; copies: idle workers repeat the blocks that would end last."""
    return Run(inputs, rates, n_nodes, block_rows, copies, seed).outcome()


# --- The report -------------------------------------------------------------------------------------------------------

Outcomes = dict[tuple[int, int, bool], Outcome]


def outcomes(inputs: Inputs, rates: Rates) -> Outcomes:
    """By nodes, rows of a block, and whether there are copies."""
    cases = [(n, block, copies) for n in NODES for block in BLOCKS for copies in (False, True)]
    cases.append((NODES[-1], TINY, True))
    return {
        case: simulate(inputs, rates, case[0], case[1], copies=case[2])
        for case in tqdm(cases, "runs", disable=None, delay=0.5)
    }


def report(inputs: Inputs, rates: Rates, found: Outcomes, busy_share: float) -> str:
    """Markdown: the inputs, and what became of the file."""
    lines = ["# A file of 10^8 rows on many nodes, simulated", ""]
    lines += ["Made by `python bench/simulate_cluster.py`, which says what is modelled and what is not.", ""]
    if busy_share > BUSY:
        lines += [f"**Its speeds follow from measurements while others used {busy_share:.0%} of the machine.**", ""]
    lines += [
        f"A worker reads {rates.prompt:.0f} tokens/s of prompts and writes {rates.new:.0f} tokens/s in batches, "
        f"{rates.one_text:.0f} of a text alone: 124M int8 on {inputs.cores_a_worker} cores by [cores.md](cores.md), "
        "which predicts this from the machine that was measured.",
        "",
        "![efficiency and cost](../../docs/images/cluster.svg)",
        "",
        "## The file",
        "",
        "Efficiency: the time that the same nodes would take if none waited, failed or straggled, by the time taken. "
        "Tail: from the first worker without a block to the last row. The price is assumed, see below.",
        "",
        "| nodes | rows of a block | copies of stragglers | hours | efficiency | tail | failures | copies "
        "| US dollars for 10^6 tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (n, block, copies), one in sorted(found.items()):
        if n in SHOWN:
            cells = [
                *(str(n), str(block), "yes" if copies else "no", f"{one.seconds / 3600:.2f}", f"{one.efficiency:.0%}"),
                *(f"{one.tail_s:.0f} s", str(one.n_failures), str(one.n_copies), f"{cost(inputs, one):.4f}"),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Inputs", "", "| input | value | source |", "|---|---|---|"]
    lines += [f"| {one.name} | {getattr(inputs, one.name):g} | {one.metadata['source']} |" for one in fields(inputs)]
    return "\n".join([*lines, ""])


def cost(inputs: Inputs, outcome: Outcome) -> float:
    """US dollars for 10^6 tokens, prompts included."""
    return outcome.node_hours * inputs.node_price / outcome.tokens * 1e6


def picture(inputs: Inputs, found: Outcomes) -> str:
    """Efficiency and cost by the number of nodes, for sizes of blocks, with and without copies."""
    efficiency: dict[str, list[tuple[float, float]]] = {}
    costs: dict[str, list[tuple[float, float]]] = {}
    for (n, block, copies), one in sorted(found.items()):
        if block in BLOCKS:
            name = f"{block} rows a block" + (", copies" if copies else "")
            efficiency.setdefault(name, []).append((n, one.efficiency))
            costs.setdefault(name, []).append((n, cost(inputs, one)))
    dashed = frozenset(name for name in efficiency if not name.endswith("copies"))
    nodes = f"nodes of {inputs.workers_a_node * inputs.cores_a_worker} cores"
    price = f"US dollars for 10^6 tokens, at {inputs.node_price:g} a node and hour"
    return line_chart.svg(
        [
            line_chart.Panel("10^8 rows: efficiency", nodes, "share of the ideal speed", efficiency, dashed=dashed),
            line_chart.Panel("10^8 rows: cost", nodes, price, costs, dashed=dashed),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench/results", help="default: %(default)s")
    parser.add_argument("--images", type=Path, default=REPOSITORY / "docs/images", help="default: %(default)s")
    options = parser.parse_args()
    file = options.results / "cores.json"
    if not file.exists():
        parser.error(f"{file} is missing: `python bench/simulate_cores.py --measure` makes it")
    measured, inputs = json.loads(file.read_text()), Inputs()
    rates = rates_of(measured, inputs)
    found = outcomes(inputs, rates)
    (options.results / "cluster.md").write_text(report(inputs, rates, found, measured["busy"]))
    (options.images / "cluster.svg").write_text(picture(inputs, found))


if __name__ == "__main__":
    main()
