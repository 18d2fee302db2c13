"""Every call of a model among others: in threads, dropped by the collector, interrupted, and while it is closed."""

import asyncio
import gc
import inspect
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from folders import write_random_model
from models import request_of

import nbgpt
from nbgpt.decoding.contrastive_search import contrastive_search
from nbgpt.engine.kv_cache import KVCache, Sequence
from nbgpt.model import Model

STORY = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when it was checked"
OPTIONS = {"max_tokens": 8, "temperature": 2.0, "seed": 4}


async def _pieces(model):
    return [piece async for piece in model.astream(STORY, **OPTIONS)]


CALLS = {
    "encode": lambda model: model.encode(STORY),
    "generate": lambda model: [one.text for one in model.generate([STORY, "Once"], n=2, **OPTIONS)],
    "stream": lambda model: "".join(model.stream(STORY, **OPTIONS)),
    "agenerate": lambda model: asyncio.run(model.agenerate(STORY, **OPTIONS)).text,
    "astream": lambda model: "".join(asyncio.run(_pieces(model))),
    "logits": lambda model: model.logits(model.encode(STORY)).tobytes(),
    "score": lambda model: model.score(STORY).logprobs,
    "score_batch": lambda model: [score.logprobs for score in model.score_batch([STORY, "Once"])],
    "rank": lambda model: model.rank(STORY, [" a", " night"]),
    "hidden_states": lambda model: model.hidden_states(STORY).tobytes(),
    "embed": lambda model: model.embed([STORY, "Once"]).tobytes(),
    "classify": lambda model: [one.logits.tobytes() for one in model.classify([STORY, "Once"])],
    "beam_search": lambda model: [(one.tokens, one.score) for one in model.beam_search(STORY, 3, max_tokens=5)],
    "contrastive_search": lambda model: model.contrastive_search(STORY, max_tokens=5).tokens,
    "session": lambda model: model.session().generate(STORY, **OPTIONS).text,
    "decode": lambda model: model.decode(model.encode(STORY)),
    "compress": lambda model: model.compress(STORY.encode()),
    "decompress": lambda model: model.decompress(model.compress(STORY.encode())),
    "trace": lambda model: model.trace(STORY).norms.tobytes(),
}
"""Of each public method something that can be compared."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors", n_labels=3)


@pytest.fixture(scope="module")
def calls(path, tmp_path_factory):
    """CALLS and one that needs a file."""
    file = tmp_path_factory.mktemp("sessions") / "a.session"
    with nbgpt.load(path, threads=1) as model:
        session = model.session()
        session.generate(STORY, **OPTIONS)
        session.save(file)
    return {**CALLS, "load_session": lambda model: model.load_session(file).generate(STORY, **OPTIONS).text}


@pytest.fixture(scope="module")
def alone(path, calls):
    """What each call gives when there are no others."""
    model = nbgpt.load(path, threads=1)
    return {name: call(model) for name, call in calls.items()}


def assert_all_is_free(model):
    """Once the threads of asynchronous calls have let their streams go."""
    deadline = time.monotonic() + 20
    while model.engine.kv_bytes_in_use:
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.01)


# --- Threads ----------------------------------------------------------------------------------------------------------


def test_every_public_method_is_tested_here(calls):
    methods = {name for name, _ in inspect.getmembers(Model, inspect.isfunction) if not name.startswith("_")}
    assert methods == {*calls, "close"}


def test_every_method_beside_every_other(path, calls, alone):
    model, wrong = nbgpt.load(path, threads=2), []

    def work(name):
        try:
            wrong.extend(name for _ in range(5) if calls[name](model) != alone[name])
        except Exception as error:
            wrong.append((name, repr(error)))

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
    assert_all_is_free(model)


def test_every_pass_holds_the_lock(path, calls, monkeypatch):
    """No luck with the timing: in each pass of each method another thread tries the lock in vain."""
    model, got = nbgpt.load(path, threads=1), []
    run, lock = model.engine.runner.thread_pool.run, model.engine.lock

    def is_free():
        if is_free := lock.acquire(blocking=False):
            lock.release()
        return is_free

    with ThreadPoolExecutor(1) as other:

        def watched(*arguments):
            got.append(other.submit(is_free).result())
            run(*arguments)

        monkeypatch.setattr(model.engine.runner.thread_pool, "run", watched)
        for name, call in calls.items():
            got.clear()
            call(model)
            assert not any(got), name
            assert got or name in ("encode", "decode")


# --- Sequences that are dropped ---------------------------------------------------------------------------------------


def test_dropping_takes_no_lock(path):
    """A finalizer runs in the middle of anything, maybe while its thread holds what the lock's owner waits for."""
    model = nbgpt.load(path, threads=1)
    engine, session, sequence = model.engine, model.session(), Sequence()
    session.generate(STORY, **OPTIONS)
    engine.append(sequence, model.encode(STORY))
    held = [session, sequence, model.stream(STORY, **OPTIONS), session.stream(STORY, **OPTIONS)]
    held += [contrastive_search(engine, model.encode(STORY), 5, alpha=0.6, k=4), engine.logits(model.encode(STORY))]
    held += [engine.hidden([model.encode(STORY)] * 40, 1), engine.tokens(request_of(engine, [1], 9))]
    for one in held[2:]:
        next(one)
    del session, sequence, one

    def drop():
        while held:
            held.pop()

    thread = threading.Thread(target=drop, daemon=True)
    with engine.lock:
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    assert engine.kv_bytes_in_use == 0


def test_pages_go_back_whatever_an_exception_cuts_short(path):
    """An exception at each line of a change in turn, and sequences that share pages: the rest is as it was."""
    model = nbgpt.load(path, threads=1)
    cache, ids = model.engine.cache, model.encode(STORY * 2)[:90]
    first = Sequence()
    expected = model.engine.runner.append(first, ids).tolist()
    before = cache.n_used

    def change():
        fork = cache.fork(first, 90)
        cache.extend(fork, 91)
        cache.extend(cache.fork(first, 70), 91)
        cache.extend(fork, 190)
        cache.truncate(fork, 70)
        cache.free(fork)
        cache.extend(fork, 10)

    n_lines = _run_to_line(change, 10**9)
    assert n_lines > 50
    for line in range(n_lines):
        _run_to_line(change, line)
        cache.recount()
        assert cache.n_used == before
        assert sorted(cache._free + first.pages) == list(range(len(cache._users)))
    model.engine.truncate(first, 89)
    assert model.engine.runner.append(first, ids[89:]).tolist() == expected


def _run_to_line(work, line):
    """Raise KeyboardInterrupt before so many lines of the cache were run -> how many there were."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename != inspect.getfile(KVCache):
            return None
        if event == "line":
            if count == line:
                raise KeyboardInterrupt
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count


def _interrupt(*_):
    raise KeyboardInterrupt


def _is_interrupted(call, seconds):
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_interrupts_at_any_moment(path, calls, alone, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's would keep the frames of dropped generators
    model, random_delay = nbgpt.load(path, threads=2), random.Random(0)
    session = model.session()
    names = ("generate", "stream", "beam_search", "contrastive_search", "score_batch", "trace", "embed", "load_session")
    work = {name: lambda name=name: calls[name](model) for name in names}
    work["one session"] = lambda: session.generate(STORY, **OPTIONS)
    within, n_interrupted = dict.fromkeys(work, 0.1), 0  # seconds
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        for _ in range(10_000):
            for name, call in work.items():
                start = time.perf_counter()
                if _is_interrupted(call, 1e-6 + within[name] * random_delay.random()):
                    n_interrupted += 1
                else:
                    within[name] = min(within[name], time.perf_counter() - start)
            if n_interrupted >= 2000:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert n_interrupted >= 2000
    assert session.generate(STORY, **OPTIONS).text == alone["session"]
    assert {name: calls[name](model) for name in calls} == alone
    session.close()
    assert_all_is_free(model)


# --- Closing ----------------------------------------------------------------------------------------------------------


def test_every_method_of_a_closed_model(path, calls):
    model = nbgpt.load(path, threads=1)
    model.close()
    empty = {
        "no logits": lambda model: model.logits([]),
        "no scores": lambda model: model.score_batch([]),
        "no vectors": lambda model: model.embed([]),
    }
    for name, call in {**calls, **empty}.items():
        if name not in ("encode", "decode"):
            with pytest.raises(RuntimeError, match=r"^this model is closed: load it again$"):
                call(model)


class _ClosingLock:
    """A lock after whose n-th release another thread has closed the model."""

    def __init__(self, model, n):
        self.model, self.n, self.lock = model, n, model.engine.lock
        self.depth = 0

    def __enter__(self):
        self.lock.acquire()
        self.depth += 1

    def __exit__(self, *_):
        self.depth -= 1
        self.lock.release()
        if not self.depth:
            self.n -= 1
            if self.n == -1:
                self.model.close()


@pytest.mark.parametrize("name", [*CALLS, "load_session"])
def test_closing_between_any_two_steps(path, calls, alone, name):
    """The right result or the error, wherever close() comes in between."""
    for n in range(1000):
        model = nbgpt.load(path, threads=1)
        model.engine.lock = lock = _ClosingLock(model, n)
        error = ""
        try:
            assert calls[name](model) == alone[name]
        except RuntimeError as raised:
            error = str(raised)
        finally:
            model.engine.lock = lock.lock
        assert error in ("", "this model is closed: load it again")
        if lock.n >= 0:
            break
    assert lock.n >= 0
    assert n > 0 or name in ("encode", "decode")
