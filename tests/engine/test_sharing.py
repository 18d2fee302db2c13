"""One model among several threads and processes, models that are closed, and models of one file."""

import gc
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from folders import text_config, write_random_model
from waiting import wait_until

import nbgpt
from nbgpt.model import Model
from nbgpt.weights import in_memory

PROMPTS = ["Once", "The Time Traveller", "", "It was a dark and stormy night", "9"]
OPTIONS = {"max_tokens": 30, "temperature": 2.0, "seed": 4}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="this system has no /proc/self/smaps")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors")


@pytest.fixture(scope="module")
def texts(path):
    """What the model writes when it is alone."""
    alone = nbgpt.load(path, threads=1)
    return {prompt: alone.generate(prompt, **OPTIONS).text for prompt in PROMPTS}


# --- Threads ----------------------------------------------------------------------------------------------------------


def test_threads_take_turns(path, texts):
    """Every kind of call at once, with texts that begin and end in the middle of others."""
    model, results = nbgpt.load(path, threads=2), []
    alone = nbgpt.load(path, threads=1)
    ids = model.encode(PROMPTS[3])
    calls = [
        *((lambda p=prompt: model.generate(p, **OPTIONS).text, texts[prompt]) for prompt in PROMPTS),
        (lambda: [c.text for c in model.generate(PROMPTS, **OPTIONS)], list(texts.values())),
        (lambda: "".join(model.stream(PROMPTS[1], **OPTIONS)), texts[PROMPTS[1]]),
        (lambda: next(model.stream(PROMPTS[1], **OPTIONS)), next(alone.stream(PROMPTS[1], **OPTIONS))),
        (lambda: model.logits(ids).tobytes(), alone.logits(ids).tobytes()),
        (lambda: model.session().generate(PROMPTS[2], **OPTIONS).text, texts[PROMPTS[2]]),
    ]

    def work(call, expected):
        results.extend(call() == expected for _ in range(3))

    threads = [threading.Thread(target=work, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3 * len(calls)
    assert model.engine.kv_bytes_in_use == 0


# --- Forks ------------------------------------------------------------------------------------------------------------


def in_child(work):
    """What work() says in a forked process, which may take a minute."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            os.write(writer, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(said)


@needs_fork
@pytest.mark.parametrize("is_used", [False, True], ids=["after load", "after generate"])
def test_a_forked_process(path, texts, is_used):
    model = nbgpt.load(path, threads=3)
    if is_used:
        model.generate("Once", max_tokens=3)
    for _ in range(2):
        assert in_child(lambda: model.generate(PROMPTS[1], **OPTIONS).text) == texts[PROMPTS[1]]
        assert model.generate(PROMPTS[3], **OPTIONS).text == texts[PROMPTS[3]]


@needs_fork
def test_a_fork_in_the_middle_of_texts(path, texts):
    """A stream goes on in both processes, and so does a session."""
    model = nbgpt.load(path, threads=2)
    stream, session = model.stream(PROMPTS[1], **OPTIONS), model.session()
    begun = next(stream)
    session.generate(PROMPTS[3], **OPTIONS)

    def go_on():
        return begun + "".join(stream), session.generate(PROMPTS[3], **OPTIONS).text

    expected = texts[PROMPTS[1]], texts[PROMPTS[3]]
    assert in_child(go_on) == expected
    assert go_on() == expected


@needs_fork
def test_a_fork_while_another_thread_generates(path, texts):
    """The child has no such thread, and must not wait for what it held."""
    model, done = nbgpt.load(path, threads=2), threading.Event()

    def work():
        while not done.is_set():
            model.generate("word " * 30, max_tokens=50, seed=1)

    busy = threading.Thread(target=work)
    busy.start()
    try:
        for _ in range(10):
            assert in_child(lambda: model.generate(PROMPTS[1], **OPTIONS).text) == texts[PROMPTS[1]]
    finally:
        done.set()
        busy.join()
    assert model.generate(PROMPTS[1], **OPTIONS).text == texts[PROMPTS[1]]


@needs_fork
@pytest.mark.parametrize("of", ["model", "session"])
def test_a_fork_while_another_thread_reads_a_stream(path, of):
    """The child goes on from where that thread was, and so does the thread."""
    model, begun, done = nbgpt.load(path, threads=2), threading.Event(), threading.Event()
    options = {"max_tokens": 150, "ignore_eos": True, "seed": 4, "temperature": 2.0}
    expected = nbgpt.load(path, threads=1).generate("Once", **options).text
    maker = model if of == "model" else model.session()
    while not done.is_set():
        stream, pieces = maker.stream("Once", **options), []

        def work(stream=stream, pieces=pieces):
            for piece in stream:
                pieces.append(piece)
                begun.set()

        begun.clear()
        reader = threading.Thread(target=work)
        reader.start()
        assert begun.wait(60)

        def go_on(stream=stream):
            return stream.completion.finish_reason, stream.finish().text, maker.generate("Once", **options).text

        reason, text, again = in_child(go_on)
        reader.join()
        assert (text, again, "".join(pieces)) == (expected, expected, expected)
        if not reason:  # or the thread had been too fast
            done.set()


@needs_fork
@pytest.mark.parametrize("first", [0, 1])
def test_a_fork_while_a_step_of_one_model_waits_for_another(path, texts, first, monkeypatch):
    """Whichever lock the fork gets first: it does not keep it while it waits for the other."""
    monkeypatch.setattr("nbgpt.engine.turns._PATIENCE", 0.05)
    models = [nbgpt.load(path, threads=1) for _ in range(2)]
    outer, inner = models[first], models[1 - first]
    inside, go_on, n_ids = threading.Event(), threading.Event(), []

    def ask(ids, logits):
        inside.set()
        assert go_on.wait(60)
        n_ids.append(len(inner.logits([1, 2, 3])))
        return logits

    thread = threading.Thread(
        target=outer.generate, args=("Once",), kwargs={"max_tokens": 3, "logits_processors": [ask]}, daemon=True
    )
    thread.start()
    assert inside.wait(60)
    threading.Timer(0.2, go_on.set).start()  # when the fork has one lock and waits for the other
    assert in_child(lambda: [one.generate(PROMPTS[1], **OPTIONS).text for one in models]) == [texts[PROMPTS[1]]] * 2
    thread.join(60)
    assert not thread.is_alive()
    assert n_ids == [3, 3, 3]


def test_two_models_that_draft_for_each_other(path, texts):
    """A step never waits for the model that drafts: with two of them, both would wait for ever."""
    models, found = [nbgpt.load(path, threads=1) for _ in range(2)], []

    def work(target, draft):
        for _ in range(5):
            found.append(target.generate(PROMPTS[1], draft_model=draft, **OPTIONS).text)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in (models, models[::-1], models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [texts[PROMPTS[1]]] * 15
    gc.collect()
    assert [one.engine.kv_bytes_in_use for one in models] == [0, 0]


def test_a_draft_model_whose_lock_is_taken_is_not_waited_for(path, texts):
    target, draft = (nbgpt.load(path, threads=1) for _ in range(2))
    found = []
    thread = threading.Thread(
        target=lambda: found.append(target.generate(PROMPTS[1], draft_model=draft, **OPTIONS).text), daemon=True
    )
    with draft.engine.lock:
        thread.start()
        thread.join(60)
        assert found == [texts[PROMPTS[1]]]


@needs_fork
def test_a_pool_of_forked_workers(path, texts):
    model = nbgpt.load(path, threads=2)
    model.generate("Once", max_tokens=3)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), _adopt, (model,)) as pool:
        assert list(pool.map(_work, PROMPTS)) == list(texts.values())


def _adopt(model):
    global adopted
    adopted = model


def _work(prompt):
    return adopted.generate(prompt, **OPTIONS).text


# --- Pickles ----------------------------------------------------------------------------------------------------------


def test_a_spawned_process(path, texts):
    """It gets the model by its file."""
    model = nbgpt.load(path, threads=2)
    model.generate("Once", max_tokens=3)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        completion = pool.submit(model.generate, PROMPTS[1], **OPTIONS).result()
    assert completion.text == texts[PROMPTS[1]]


def test_a_pickled_model_is_loaded_again(path, texts, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    model = nbgpt.load(path.name, threads=3)
    data = pickle.dumps(model)
    assert len(data) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert (again.n_threads, again.weights.path, again.dtype) == (3, path, "float32")
    assert again.generate(PROMPTS[1], **OPTIONS).text == texts[PROMPTS[1]]


def test_a_model_without_a_file_is_not_pickled():
    config = text_config(n_vocab=50257)
    weights = in_memory(config, "float32", "made-up", lambda name, kind, n: np.zeros(n, np.float32))
    with pytest.raises(TypeError, match=r"model made-up has no file that another process could load: .*made-up"):
        pickle.dumps(Model(weights))


# --- Closing ----------------------------------------------------------------------------------------------------------


def test_a_closed_model(path, tmp_path):
    with nbgpt.load(path, threads=2) as model:
        session, stream = model.session(), model.stream("Once", **OPTIONS)
        session.generate("Once", **OPTIONS)
        next(stream)
    calls = [
        lambda: model.generate("Once"),
        lambda: list(model.stream("Once")),
        lambda stream=stream: list(stream),
        lambda: model.generate(["Once", "It"], n=2),
        lambda: model.logits([1]),
        lambda: model.engine.nll([1, 2]),
        lambda session=session: session.generate("Once"),
        lambda session=session: session.save(tmp_path / "a.session"),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="this model is closed: load it again"):
            call()
    model.close()
    session.close()
    assert (model.name, model.dtype, model.encode("Once")) == ("random", "float32", nbgpt.load(path).encode("Once"))
    assert (model.engine.kv_bytes_in_use, model.engine.cache.memory.size) == (0, 0)
    assert not list(tmp_path.iterdir())


def test_closing_sends_the_threads_home(path):
    def workers():
        return {thread for thread in threading.enumerate() if thread.name.startswith("nbgpt-")}

    others, model = workers(), nbgpt.load(path, threads=4)
    model.generate("Once", max_tokens=2)
    own = workers() - others
    assert len(own) == 3
    model.close()
    wait_until(lambda: not own & workers())


def test_closing_while_others_generate(path):
    """They end with the same error, wherever they are."""
    for _ in range(3):
        model, errors = nbgpt.load(path, threads=2), []

        def work(model=model, errors=errors):
            try:
                while True:
                    model.generate("word " * 20, max_tokens=40, seed=1)
            except RuntimeError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        model.close()
        for thread in threads:
            thread.join(20)
        assert errors == ["this model is closed: load it again"] * 3


def test_a_team_that_was_dismissed_comes_again(path):
    model = nbgpt.load(path, threads=3)
    before = model.logits([1, 2, 3])
    model.engine.runner.thread_pool.dismiss()
    model.engine.runner.thread_pool.dismiss()
    np.testing.assert_array_equal(model.logits([1, 2, 3]), before)


# --- One file, several models -----------------------------------------------------------------------------------------


def mappings(path):
    """Of each mapping of a file in this process: kilobytes by what they are (Rss, Pss, Private_Dirty, ...)."""
    result, is_ours = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            if is_ours := line.endswith(str(path)):
                result.append({})
        elif is_ours and line.endswith(" kB"):
            name, size, _ = line.split()
            result[-1][name.rstrip(":")] = int(size)
    return result


@needs_proc
def test_models_of_one_file_share_its_pages(path):
    size = path.stat().st_size // 1024
    first, second = nbgpt.load(path, threads=1), nbgpt.load(path, threads=1)
    assert int(first.weights.block.sum()) == int(second.weights.block.sum())  # every page is read
    ours = mappings(path)
    assert len(ours) == 2
    assert all(each["Rss"] >= size for each in ours)
    assert sum(each["Pss"] for each in ours) <= size + 8  # each page counts for the models that share it
    assert sum(each["Private_Dirty"] + each["Private_Clean"] for each in ours) == 0
    first.close()
    assert len(mappings(path)) == 1
    assert second.generate("Once", **OPTIONS).text
    second.close()
    assert not mappings(path)


@needs_proc
def test_a_model_that_nobody_holds_leaves_nothing(path):
    model = nbgpt.load(path, threads=2)
    session = model.session()
    session.generate("Once", **OPTIONS)
    assert len(mappings(path)) == 1
    del model, session
    gc.collect()
    wait_until(lambda: not mappings(path))


def test_the_package_says_that_it_is_typed():
    assert (Path(sys.modules["nbgpt"].__file__).parent / "py.typed").exists()
