"""The answer to a request with a seed is the same whoever else is being served, and whoever goes away meanwhile."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import choices_of, serving

N_REQUESTS, N_GONE = 200, 60
ARRIVALS = 1.0
"""Seconds over which the requests begin: their texts take several times as long together."""
WORDS = ["the", "sea", "and", "ship", "it", "was", "dark", "night", "stormy", "end", "of", "a", "café", "日本", "said"]
MIXES = (
    {},
    {"temperature": 0},
    {"top_k": 0, "temperature": 1.3},
    {"top_p": 0.8},
    {"min_p": 0.05, "typical_p": 0.9},
    {"mirostat_tau": 3.0},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    {"dry_multiplier": 0.8, "frequency_penalty": 0.3},
    {"stop": ["the", "a"]},
    {"guided_regex": "[a-z ]{5,60}"},
    {"logit_bias": {"5": 4, "9": -100}},
    {"echo": True},
    {"overflow": "truncate_left", "max_tokens": 220},
    {"prompt_lookup": True},
    {"n": 2},
    {"n": 1, "best_of": 3},
)


def requests_of(rng, n):
    """Bodies with seeds, of prompts that share their beginnings and of some that do not."""
    shared = " ".join(rng.choices(WORDS, k=20))
    for seed in range(n):
        own = " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
        prompt = f"{shared} {own}" if rng.random() < 0.3 else own
        body = {"prompt": prompt, "seed": seed, "max_tokens": rng.randint(10, 120), **rng.choice(MIXES)}
        yield body | ({"logprobs": rng.randint(0, 3)} if rng.random() < 0.7 else {})


@pytest.fixture(scope="module")
def crowded(files):
    """A server whose KV cache holds 12 pages of 64 tokens, for 16 texts of up to 200."""
    with serving(
        "--model", f"tiny={files['tiny']}", "--kv-memory", "600K", "--max-batch", 16, "--max-queue", 2000
    ) as server:
        yield server


def leave(server, body, seconds):
    """Be a client that goes away before its answer is complete."""
    with server.connect() as connection:
        data = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(seconds)


def test_200_answers_are_the_same_alone_and_in_a_crowd(crowded):
    rng = random.Random(0)
    bodies = list(requests_of(rng, N_REQUESTS))
    alone = [crowded.post("/v1/completions", body) for body in bodies]
    assert {answer.status for answer in alone} == {200}, [one.body for one in alone if one.status != 200][:1]
    preempted = crowded.metrics()["nbgpt_num_preemptions_total tiny"]

    def ask(number, wait, stream):
        time.sleep(wait)
        return number, crowded.post("/v1/completions", bodies[number] | {"stream": stream})

    order = list(range(N_REQUESTS))
    rng.shuffle(order)
    goers = list(requests_of(rng, N_GONE))
    with ThreadPoolExecutor(N_REQUESTS + N_GONE) as clients:
        asked = [
            clients.submit(
                ask, number, rng.uniform(0, ARRIVALS), "best_of" not in bodies[number] and rng.random() < 0.5
            )
            for number in order
        ]
        gone = [
            clients.submit(leave, crowded, body | {"stream": rng.random() < 0.5, "best_of": None}, rng.uniform(0, 2))
            for body in goers
        ]
        together = dict(one.result() for one in asked)
        for one in gone:
            one.result()
    differing = [number for number in order if choices_of(together[number].body) != choices_of(alone[number].body)]
    assert differing == []
    metrics = crowded.wait_idle()
    assert metrics["nbgpt_num_preemptions_total tiny"] >= preempted + 10, "nothing was put to the test"
    assert metrics["nbgpt_request_failure_total"] > 0, "nobody went away"


def test_what_goes_away_gives_its_pages_back(crowded):
    crowded.wait_idle()
    for stream in (False, True):
        leave(crowded, {"prompt": "it was", "max_tokens": 2000, "overflow": "truncate_left", "stream": stream}, 0.3)
    metrics = crowded.wait_idle()
    assert metrics["nbgpt_kv_cache_usage_perc tiny"] * 12 <= 6, "more than the prefix cache may keep"


def test_another_process_gives_the_same(crowded, server):
    for body in requests_of(random.Random(1), 20):
        here, there = (one.post("/v1/completions", body | {"model": "tiny"}).body for one in (crowded, server))
        assert choices_of(here) == choices_of(there)
