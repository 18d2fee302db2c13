import json
from types import SimpleNamespace

import numpy as np
import pytest
from models import config_of, random_params, write_native

from nbgpt import weights
from nbgpt.analysis import benchmark
from nbgpt.analysis.benchmark import Test as Trial  # pytest would take a Test for tests of its own
from nbgpt.analysis.benchmark import as_json, as_table, elapsed, flop_a_token, plan, run, step_bytes
from nbgpt.analysis.roofline import Roofline
from nbgpt.config import OFFICIAL
from nbgpt.engine.model_runner import ModelRunner

LLAMA_BENCH = {
    *("build_commit", "cpu_info", "model_filename", "model_type", "model_size", "model_n_params", "n_batch"),
    *("n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "test_time"),
    *("avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts"),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = config_of(n_embd=80, n_head=2)  # heads of 40, whose values are padded to 48
    return write_native(
        tmp_path_factory.mktemp("models") / "tiny.safetensors", random_params(config), config, "float32"
    )


@pytest.fixture
def hasty(monkeypatch):
    """No time is spent on measuring what the machine allows."""
    monkeypatch.setattr(benchmark, "measure_roofline", lambda model: Roofline(10.0, 20.0))


class FakeRunner:
    """Takes a second for each id that it reads and half of one to draw an id, by a clock of its own."""

    def __init__(self):
        self.now, self.config, self.in_cache = 0.0, config_of(), 0
        self.cache = SimpleNamespace(truncate=self.truncate)

    def append(self, sequence, ids, sampling=()):
        self._read(sequence, len(ids))
        self.now += 0.5 * len(sampling)

    def decode(self, sequences, ids):
        assert len(sequences) == len(ids)
        for sequence in sequences:
            self._read(sequence, 1)

    def truncate(self, sequence, length):
        assert length == 0
        self.in_cache -= sequence.length

    def _read(self, sequence, n):
        sequence.length += n
        self.in_cache += n
        self.now += n


@pytest.fixture
def fake(monkeypatch):
    model = FakeRunner()
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: model.now))
    return model


@pytest.mark.parametrize(
    ("test", "draw", "seconds"),
    [
        (Trial(n_prompt=5), False, 5),
        (Trial(n_prompt=5, n_depth=7), False, 5),
        (Trial(n_prompt=5, n_depth=7), True, 5.5),
        (Trial(n_gen=4), False, 4),
        (Trial(n_gen=4, n_depth=7, n_sequences=3), False, 12),
    ],
)
def test_the_clock_sees_the_test_alone(fake, test, draw, seconds):
    assert elapsed(fake, test, draw=draw) == seconds
    assert fake.now == seconds + test.n_depth * test.n_sequences
    assert fake.in_cache == 0


def test_names_are_those_of_llama_bench():
    assert str(Trial(n_prompt=512)) == "pp512"
    assert str(Trial(n_gen=128, n_depth=896, n_sequences=8)) == "tg128 @ d896 b8"


def test_every_combination():
    tests = plan(OFFICIAL["gpt2"], [512, 0], [128, 16], [0, 64], [1, 8])
    assert [str(test) for test in tests] == [
        *("pp512", "pp512 @ d64", "tg128", "tg16", "tg128 b8", "tg16 b8"),
        *("tg128 @ d64", "tg16 @ d64", "tg128 @ d64 b8", "tg16 @ d64 b8"),
    ]


@pytest.mark.parametrize(
    "test", [Trial(n_prompt=9, n_depth=5), Trial(n_gen=9, n_depth=5), Trial(n_gen=1, n_sequences=4)]
)
@pytest.mark.parametrize(("kv_dtype", "kv_bytes_a_number"), [("float32", 4), ("float16", 2)])
def test_bytes_and_operations_against_counting_each_token(file, test, kv_dtype, kv_bytes_a_number):
    model = ModelRunner(weights.load(file), 1, kv_dtype)
    config = model.config
    values_of_head = 48
    n = test.n_prompt or test.n_gen
    kv_bytes, operations = [], []
    for token in range(n):
        seen = test.n_depth + token + 1
        numbers = config.n_layer * config.n_head * seen * (config.head_dim + values_of_head)
        kv_bytes.append(kv_bytes_a_number * numbers)
        matrices = sum(2 * n_in * n_out for n_in, n_out in config.matrices.values())
        attention = 2 * seen * config.n_embd + 2 * seen * config.n_embd
        logits = 2 * config.n_embd * config.n_vocab if test.n_gen else 0
        operations.append(config.n_layer * (matrices + attention) + logits)
    read = {name: entry.stop - entry.start for name, entry in model.weights.entries.items() if name != "wpe.weight"}
    assert step_bytes(model, test) == pytest.approx(sum(read.values()) + test.n_sequences * np.mean(kv_bytes))
    assert flop_a_token(config, test) == pytest.approx(np.mean(operations))


@pytest.mark.usefixtures("hasty")
def test_rows(file):
    tests = [Trial(n_prompt=20), Trial(n_gen=3, n_depth=4, n_sequences=2)]
    rows = list(run(weights.load(file), tests, [1, 2], 3))
    assert [(row.n_threads, row.test) for row in rows] == [(n, test) for n in (1, 2) for test in tests]
    prompt, tokens = (json.loads(next(as_json([row])))[0] for row in rows[:2])
    assert prompt.keys() == tokens.keys() > LLAMA_BENCH
    assert prompt["n_prompt"] == 20
    assert prompt["first_token_ns"] > 0
    assert prompt["gb_s"] == 0
    assert (tokens["n_gen"], tokens["n_depth"], tokens["n_sequences"]) == (3, 4, 2)
    assert tokens["first_token_ns"] is None
    for row, n_tokens in ((prompt, 20), (tokens, 6)):
        speeds = [1e9 * n_tokens / nanoseconds for nanoseconds in row["samples_ns"]]
        assert len(speeds) == 3
        assert row["samples_ts"] == pytest.approx(speeds, rel=1e-3)
        assert row["avg_ts"] == pytest.approx(np.mean(row["samples_ts"]))
        assert row["stddev_ts"] == pytest.approx(np.std(row["samples_ts"], ddof=1))
        assert row["model_size"] == file.stat().st_size
        assert row["fma_share"] == pytest.approx(row["avg_ts"] * row["flop_a_token"] / 20e9)
    assert tokens["gb_s"] == pytest.approx(tokens["avg_ts"] / 2 * tokens["bytes_a_step"] / 1e9)
    assert tokens["read_share"] == pytest.approx(tokens["gb_s"] / 10)


def test_shares_are_of_the_larger_limit_before_and_after(file, monkeypatch):
    limits = iter([Roofline(1.0, 5.0), Roofline(4.0, 3.0), Roofline(2.0, 9.0)])
    monkeypatch.setattr(benchmark, "measure_roofline", lambda model: next(limits))
    first, second = run(weights.load(file), [Trial(n_gen=2), Trial(n_gen=3)], [1], 1)
    assert (first.read_share, first.fma_share) == (first.gb_s / 4, first.gflop_s / 5)
    assert (second.read_share, second.fma_share) == (second.gb_s / 4, second.gflop_s / 9)
    assert second.to_dict()["read_gb_s_before"] == 4
    assert second.to_dict()["fma_gflop_s_after"] == 9


@pytest.mark.usefixtures("hasty")
def test_a_table_comes_row_by_row(file):
    lines = as_table(run(weights.load(file), [Trial(n_prompt=5), Trial(n_gen=2)], [1], 1))
    head, rule, prompt = (next(lines) for _ in range(3))
    assert head.count("|") == rule.count("|") == prompt.count("|")
    assert "| 1 | pp5 | " in prompt
    assert " ms |  | " in prompt  # a prompt reads no weights to speak of
    assert "| 1 | tg2 | " in next(lines)
    assert list(lines) == []
