"""Users for Locust (https://locust.io), a public load generator that bench/serve.py runs: answers of 100 tokens."""

import itertools
import random

from locust import HttpUser, task

_NUMBERS = itertools.count()


class Writer(HttpUser):
    """Asks again as soon as it has its answer."""

    @task
    def complete(self):
        number = next(_NUMBERS)
        prompt = random.Random(number).choices(range(50256), k=30)
        body = {
            "prompt": prompt,
            "max_tokens": 100,
            "ignore_eos": True,
            "temperature": 0.8,
            "top_k": 40,
            "seed": number,
        }
        self.client.post("/v1/completions", json=body)
