"""Reading the metrics leaves the engine alone: a step may be under way in another thread."""

import threading

from folders import write_random_model

import nbgpt
from nbgpt.engine.kv_cache import Sequence
from nbgpt.serve.metrics import Metrics

KEY = b'nbgpt_kv_cache_usage_perc{model="m"} '


def usage(metrics):
    (line,) = (line for line in metrics.text().splitlines() if line.startswith(KEY))
    return float(line.removeprefix(KEY))


def test_metrics_are_read_in_the_middle_of_a_step(tmp_path):
    """They wait for no lock, and free no pages: that is for the thread that has the lock."""
    model = nbgpt.load(write_random_model(tmp_path / "m.safetensors"))
    metrics, cache, found = Metrics(), model.engine.cache, []
    metrics.watch(lambda: (0, 0), {"m": model.engine})
    sequence = Sequence()
    model.engine.append(sequence, [1, 2, 3])
    del sequence
    with model.engine.lock:
        reading = threading.Thread(target=lambda: found.append(usage(metrics)))
        reading.start()
        reading.join(20)
        assert found == [1 / cache.n_pages]
        assert len(cache._returned) == 1
    assert cache.n_used == 0
    assert usage(metrics) == 0
