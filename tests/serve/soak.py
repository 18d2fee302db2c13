"""Random requests, clients that go away and nonsense, for some minutes; then nothing may be left of them.

PYTHONPATH=.:tests:tests/serve python tests/serve/soak.py --minutes 20
"""

import argparse
import json
import os
import random
import socket
import threading
import time
from pathlib import Path

from servers import serving

N_CLIENTS = 8


def resources(server):
    """What a process holds: MiB of memory, threads, files."""
    folder = Path(f"/proc/{server.process.pid}")
    pages = int((folder / "statm").read_text().split()[1])
    n_threads, n_files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, n_threads, n_files


def act(server, rng):
    """One thing that a client may do."""
    prompt = " ".join(rng.choices(["the", "sea", "was", "dark", "日本"], k=rng.randint(1, 200)))
    body = {"prompt": prompt, "max_tokens": rng.randint(1, 80), "n": rng.choice([1, 1, 3]), "seed": rng.getrandbits(32)}
    body |= rng.choice([{}, {"logprobs": 3}, {"typical_p": 0.7}, {"stop": "a"}, {"temperature": -1}, {"nonsense": 1}])
    data = json.dumps(body | {"stream": rng.random() < 0.5}).encode()
    with server.connect() as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
        )
        head += "Content-Type: application/json\r\n\r\n"
        connection.sendall(head.encode() + (data if rng.random() < 0.9 else data[: len(data) // 2]))
        if rng.random() < 0.6:
            connection.settimeout(5)
            try:
                while connection.recv(1 << 16):
                    pass
            except OSError:
                pass
        elif rng.random() < 0.5:  # an abrupt end: RST
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def soak(server, seconds, seed=0):
    """Let clients act for so long -> how often they did."""
    deadline, counts = time.monotonic() + seconds, [0] * N_CLIENTS

    def client(number):
        rng = random.Random(f"{seed} {number}")
        while time.monotonic() < deadline:
            act(server, rng)
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def run(minutes):
    """Soak a server -> what it held after the first part of the time and after all of it; nothing may be lost."""
    with serving("--client-timeout", 2, "--kv-memory", "64M", "--log-level", "warning") as server:
        first = soak(server, min(60, minutes * 20))
        server.wait_idle()
        before = resources(server)
        n_acts = first + soak(server, minutes * 60, seed=1)
        time.sleep(3)  # until connections that were left alone have been closed
        metrics = server.wait_idle()
        after = resources(server)
        assert server.stop() == 0
    return n_acts, before, after, metrics["nbgpt_kv_cache_usage_perc story-34m"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    n_acts, before, after, usage = run(parser.parse_args().minutes)
    print(
        f"{n_acts} acts; MiB, threads, files: {before} after the first part, {after} at the end; KV pages {usage:.0%}"
    )
