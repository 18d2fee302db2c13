"""From ids to text: stop strings, echo, log-probabilities with their texts, and several streams at once."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from folders import (
    RECITED,
    TOKENIZER,
    ballot,
    checkpoint_of,
    reciter,
    write_random_model,
    write_text_model,
)
from models import advance

import nbgpt
from nbgpt.conversion.convert import convert

WILD = {"temperature": 2.0, "top_k": 0, "seed": 5}


@pytest.fixture(scope="module")
def recital(tmp_path_factory):
    """A model that recites RECITED from position 0 on, whatever it reads there, and ends it."""
    return nbgpt.load(write_text_model(tmp_path_factory.mktemp("models") / "recital.safetensors", *reciter()))


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    return nbgpt.load(write_random_model(tmp_path_factory.mktemp("models") / "r.safetensors", tied_embeddings=False))


IDS = TOKENIZER.encode(RECITED)


@pytest.mark.parametrize(("start", "end"), list(itertools.combinations(range(0, len(RECITED), 3), 2)))
def test_a_stop_text_at_every_place(recital, start, end):
    """Wherever it straddles tokens: it is not written, the pieces end before it and the tokens with it."""
    stop = RECITED[start:end]
    before = RECITED[: RECITED.index(stop)]
    stream = recital.stream(max_tokens=100, stop=stop)
    pieces = list(stream)
    completion = stream.completion
    assert "".join(pieces) == completion.text == before
    assert completion.finish_reason == "stop"
    n = len(completion.tokens)
    assert completion.tokens == IDS[:n]
    assert stop in TOKENIZER.decode(IDS[:n])
    assert stop not in TOKENIZER.decode(IDS[: n - 1])
    assert completion.usage.completion_tokens == n


def test_a_stop_text_that_is_cut_off_is_written(recital):
    """Three tokens in, the stop text has begun and the limit ends the text."""
    said = TOKENIZER.decode(IDS[:3])
    completion = recital.generate(max_tokens=3, stop=[said[-2:] + "nothing"])
    assert (completion.text, completion.finish_reason) == (said, "length")


def test_the_last_token_may_complete_a_stop_text(recital):
    n = next(n for n in range(1, 9) if "caf" in TOKENIZER.decode(IDS[:n]))
    completion = recital.generate(max_tokens=n, stop="caf")
    assert (completion.text, completion.finish_reason, len(completion.tokens)) == ("Naïve ", "stop", n)


def test_a_text_that_has_ended_gives_its_memory_back(recital):
    for options in ({}, {"stop": "dark"}, {"max_tokens": 3}):
        stream = recital.stream(**{"max_tokens": 100, **options})
        assert "".join(stream)
        assert recital.engine.kv_bytes_in_use == 0


def test_stop_ids(recital):
    completion = recital.generate(max_tokens=100, stop=IDS[6])
    n = IDS.index(IDS[6])
    assert completion.tokens == IDS[:n]
    assert (completion.text, completion.finish_reason) == (TOKENIZER.decode(IDS[:n]), "stop")


def test_no_stop_text_before_min_tokens(recital):
    first = recital.generate(max_tokens=100, stop="t")
    n = len(first.tokens)
    later = recital.generate(max_tokens=100, stop="t", min_tokens=n)
    assert first.text == RECITED[: RECITED.index("t")]
    assert later.text.startswith(TOKENIZER.decode(IDS[:n]))
    assert later.text != first.text
    assert RECITED.startswith(later.text + "t")


def test_ignore_eos(recital):
    completion = recital.generate(max_tokens=len(IDS) + 3, ignore_eos=True)
    assert completion.tokens[: len(IDS) + 1] == [*IDS, TOKENIZER.eos_id]
    assert completion.text.startswith(RECITED + "<|endoftext|>")
    assert completion.finish_reason == "length"


def test_prefix(random_model):
    completion = random_model.generate("It", prefix=" was dark", max_tokens=30, **WILD)
    ids = TOKENIZER.encode(" was dark")
    assert completion.tokens[: len(ids)] == ids
    assert completion.text.startswith(" was dark")
    assert completion.usage.completion_tokens == len(completion.tokens)
    stopped = random_model.generate("It", prefix=" was dark", max_tokens=30, stop=" dark", **WILD)
    assert (stopped.text, stopped.finish_reason) == (" was", "stop")
    assert " dark" in TOKENIZER.decode(stopped.tokens)
    assert len(stopped.tokens) <= len(ids)


@pytest.mark.parametrize("bos", [True, False])
def test_echo(random_model, bos):
    plain = random_model.generate("It was", max_tokens=12, bos=bos, logprobs=1, **WILD)
    echoed = random_model.generate("It was", max_tokens=12, bos=bos, echo=True, logprobs=1, **WILD)
    prompt = random_model.encode("It was", bos)
    assert echoed.text == "It was" + plain.text
    assert echoed.tokens == [*prompt, *plain.tokens]
    assert echoed.usage == plain.usage
    assert [one.token for one in echoed.logprobs] == echoed.tokens
    assert "".join(one.text for one in echoed.logprobs) == echoed.text
    assert echoed.logprobs[len(prompt) :] == plain.logprobs
    assert echoed.logprobs[0].logprob is None
    assert next(random_model.stream("It was", max_tokens=12, echo=True)) == "It was"
    assert random_model.generate("It was", max_tokens=3, echo=True).logprobs is None


def test_logprobs_have_their_texts(recital):
    completion = recital.generate(max_tokens=100, logprobs=2, stop="night")
    assert [one.token for one in completion.logprobs] == completion.tokens
    assert b"".join(one.bytes for one in completion.logprobs) == TOKENIZER.decode_bytes(completion.tokens)
    assert "".join(one.text for one in completion.logprobs) == TOKENIZER.decode(completion.tokens)
    assert any(one.bytes and not one.text for one in completion.logprobs)  # the first bytes of the emoji
    for one in completion.logprobs:
        assert next(iter(one.top)) == one.token
        assert len(one.top) == 2
        assert one.logprob == pytest.approx(0, abs=1e-3)


def test_a_live_streams_logprobs(random_model):
    stream = random_model.stream("Once", max_tokens=9, logprobs=0, **WILD)
    text = ""
    for piece in stream:
        text += piece
        assert "".join(one.text for one in stream.logprobs) == text
    assert stream.logprobs == stream.completion.logprobs


def test_logprobs_of_ids_beyond_the_vocabulary(tmp_path):
    """An id without a token is never chosen, but log-probabilities are the model's own, and it is the likeliest."""
    absent = TOKENIZER.n_vocab + 6
    config, params = ballot(np.arange(TOKENIZER.n_vocab + 7) == absent)
    convert(checkpoint_of(config, params), "float32", tmp_path / "m.safetensors")
    completion = nbgpt.load(tmp_path / "m.safetensors").generate("a", max_tokens=2, greedy=True, logprobs=1)
    for one in completion.logprobs:
        assert one.token < TOKENIZER.n_vocab
        assert list(one.top) == [absent]
        assert one.top[absent] > one.logprob


# Several at once


def test_streams_that_grow_together(random_model):
    prompts = ["Once", "It was a dark", "", "The"]
    options = {"max_tokens": 25, "stop": ["e"], **WILD}
    alone = [random_model.generate(prompt, **options) for prompt in prompts]
    streams = random_model.stream(prompts, **options)
    turns = ["".join(filter(None, turn)) for turn in itertools.zip_longest(*streams)]
    assert sum(map(len, turns)) == sum(len(one.text) for one in alone)
    found = [stream.completion for stream in streams]
    assert [(one.text, one.tokens, one.finish_reason) for one in found] == [
        (one.text, one.tokens, one.finish_reason) for one in alone
    ]


def test_asking_one_lets_the_others_grow(recital):
    first, second = recital.stream(["", ""], max_tokens=100)
    assert "".join(first) == RECITED
    assert second.completion.text == RECITED  # ready, though nobody has asked
    assert "".join(second) == RECITED


def test_streams_that_are_dropped_give_their_memory_back(random_model):
    streams = random_model.stream(["a", "b"], max_tokens=50, ignore_eos=True)
    next(streams[0])
    assert random_model.engine.kv_bytes_in_use > 0
    del streams
    assert random_model.engine.kv_bytes_in_use == 0


def read_at_once(streams):
    """The pieces that each of several threads gets of its stream, and the errors of all."""
    pieces, errors = [[] for _ in streams], []

    def read(n):
        try:
            pieces[n].extend(streams[n])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pieces, errors


def test_threads_read_streams_that_grow_together(random_model):
    options = {"max_tokens": 60, "ignore_eos": True, **WILD}
    alone = [one.text for one in random_model.generate("Once", n=4, **options)]
    pieces, errors = read_at_once(random_model.stream("Once", n=4, **options))
    assert errors == []
    assert list(map("".join, pieces)) == alone


def test_threads_read_one_stream(random_model):
    options = {"max_tokens": 60, "ignore_eos": True, **WILD}
    text = random_model.generate("Once", **options).text
    for of in (random_model, random_model.session()):
        stream = of.stream("Once", **options)
        pieces, errors = read_at_once([stream] * 3)
        assert errors == []
        assert stream.completion.text == text
        assert sorted("".join(itertools.chain(*pieces))) == sorted(text)


def test_an_error_in_one_text_is_everyones(random_model):
    class Fail:
        def __init__(self):
            self.n_texts = itertools.count()

        def for_request(self, n_prompt):
            fails = next(self.n_texts) == 1

            def process(ids, logits):
                if fails and len(ids) > n_prompt + 3:
                    raise RuntimeError("enough")
                return logits

            return process

    streams = random_model.stream(["a", "b", "c"], max_tokens=20, ignore_eos=True, logits_processors=[Fail()])
    for stream in streams:
        with pytest.raises(RuntimeError, match="enough"):
            list(stream)
    assert random_model.engine.kv_bytes_in_use == 0


# Cancellation


def test_cancel_keeps_what_was_held_back(recital):
    stream = recital.stream(max_tokens=100, stop="café or tea")
    pieces = [next(stream)]
    while "caf" not in TOKENIZER.decode(stream.completion.tokens):
        pieces.append(next(stream))
    stream.cancel()
    pieces += stream
    completion = stream.completion
    assert completion.finish_reason == "cancelled"
    assert "".join(pieces) == completion.text == TOKENIZER.decode(completion.tokens)


def test_cancel_from_another_thread(random_model):
    stream = random_model.stream("Once", max_tokens=10**9, overflow="truncate_left", ignore_eos=True)
    timer = threading.Timer(0.3, stream.cancel)
    timer.start()
    text = "".join(stream)
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text == text
    assert len(stream.completion.tokens) > 5
    assert random_model.engine.kv_bytes_in_use == 0


# Interrupts, and what is read late


def interrupted_once(model, monkeypatch):
    """The next pass ends with Ctrl-C."""
    forward = model.engine.runner.forward

    def interrupt(*arguments):
        monkeypatch.setattr(model.engine.runner, "forward", forward)
        raise KeyboardInterrupt

    monkeypatch.setattr(model.engine.runner, "forward", interrupt)


def test_an_interrupt_is_no_end_of_the_others_texts(random_model, monkeypatch):
    """Streams that were made together end with an error, not with a shorter text; cancelled ones just end."""
    streams = random_model.stream(["a", "b", "c"], max_tokens=20, ignore_eos=True)
    next(streams[0])
    interrupted_once(random_model, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        list(streams[0])
    for stream in streams[:2]:
        with pytest.raises(RuntimeError, match="interrupted"):
            list(stream)
    streams[2].cancel()
    list(streams[2])
    assert random_model.engine.kv_bytes_in_use == 0


def test_a_stream_of_another_call_fails_with_the_step(random_model, monkeypatch):
    ours, theirs = (random_model.stream("Once", max_tokens=20, ignore_eos=True) for _ in range(2))
    next(ours)
    next(theirs)
    expected = random_model.generate("Once", max_tokens=20, ignore_eos=True, seed=ours.completion.seed).text
    requests = [ours._writer.request, theirs._writer.request]
    interrupted_once(random_model, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        advance(random_model.engine, requests)
    for stream in (ours, theirs):
        with pytest.raises(RuntimeError, match="interrupted"):
            list(stream)
    assert random_model.generate("Once", max_tokens=20, ignore_eos=True, seed=ours.completion.seed).text == expected


def test_streams_that_are_read_out_of_order(random_model):
    """The last first, a few at a time: those before it grow meanwhile, and are ready."""
    prompts = ["Once", "It was a dark", "", "The", "rain"]
    alone = [random_model.generate(prompt, max_tokens=25, **WILD).text for prompt in prompts]
    streams = random_model.stream(prompts, max_tokens=25, batch_size=2, **WILD)
    texts = {}
    for n in (4, 1, 3, 0, 2):
        texts[n] = "".join(streams[n])
    assert [texts[n] for n in range(5)] == alone


def test_a_stream_that_is_read_while_others_wait_for_their_turn(random_model):
    """Only the first two grow, and the third when one of them has ended."""
    streams = random_model.stream(["a"] * 3, max_tokens=5, batch_size=2, ignore_eos=True)
    next(streams[0])
    assert [len(stream.completion.tokens) > 0 for stream in streams] == [True, True, False]
    list(streams[0])
    list(streams[2])
    assert [len(stream.completion.tokens) for stream in streams] == [5, 5, 5]


def test_a_dropped_stream_beside_one_that_is_read(random_model):
    kept = random_model.stream("Once", max_tokens=40, **WILD)
    dropped = random_model.stream("It was", max_tokens=40, ignore_eos=True)
    text = next(kept)
    assert next(dropped)
    del dropped
    assert len(list(random_model.engine.scheduler._queue)) == 1
    assert text + "".join(kept) == random_model.generate("Once", max_tokens=40, **WILD).text
    assert random_model.engine.kv_bytes_in_use == 0


# --- Streams of one call in several threads ---------------------------------------------------------------------------


def test_a_thread_waits_for_the_rest_that_another_is_writing(recital, monkeypatch):
    """The text has ended, and what was held back for a stop string is not among the pieces yet."""
    said = TOKENIZER.decode(IDS[:3])
    options = {"max_tokens": 3, "stop": said[-2:] + "nothing"}
    others, mine = recital.stream(n=2, **options)
    pieces, finish = [], mine._writer._stops.finish
    reading = threading.Thread(target=lambda: pieces.extend(mine), daemon=True)

    def slow_finish():
        reading.start()
        reading.join(0.3)  # it ends at once if it believes that nothing comes
        return finish()

    monkeypatch.setattr(mine._writer._stops, "finish", slow_finish)
    assert "".join(others) == said
    reading.join(20)
    assert "".join(pieces) == said


def test_what_has_been_written_while_another_thread_goes_on(recital):
    """A step of another thread has made the text grow, and nobody has written it yet."""
    stream = recital.stream(max_tokens=3)
    next(stream)
    before = stream.completion
    advance(recital.engine, [stream._writer.request])
    after = stream.completion
    assert len(stream._writer.request.tokens) > len(after.tokens)
    assert (after.text, after.tokens, after.finish_reason, after.usage) == (
        before.text,
        before.tokens,
        "",
        before.usage,
    )
    assert stream.finish().text == TOKENIZER.decode(IDS[:3])


def test_an_interrupt_of_one_thread_while_another_sorts_out_what_has_ended(recital, monkeypatch):
    """The other brings no stream back: one that is then cancelled would wait for ever."""
    lasting, ending = recital.stream([nbgpt.Prompt("", max_tokens=20), nbgpt.Prompt("", max_tokens=2)])
    main, is_sorting = threading.get_ident(), threading.Event()
    advance_, n_asked = recital.engine.advance, itertools.count()

    class SlowToAnswer(type(lasting._writer)):
        """Asked when the other text has ended: whether any has, which ones are to be retired, and which ones go on."""

        @property
        def is_closed(self):
            if ending._writer.is_closed and threading.get_ident() != main and next(n_asked) == 2:
                is_sorting.set()
                time.sleep(0.3)
            return False

    def interrupted(*arguments):
        if threading.get_ident() == main:
            raise KeyboardInterrupt
        advance_(*arguments)

    def read_on():
        with contextlib.suppress(RuntimeError):  # the other learns of the interrupt
            ending.finish()

    lasting._writer.__dict__.pop("is_closed")
    lasting._writer.__class__ = SlowToAnswer
    monkeypatch.setattr(recital.engine, "advance", interrupted)
    other = threading.Thread(target=read_on, daemon=True)
    other.start()
    assert is_sorting.wait(20)
    with pytest.raises(KeyboardInterrupt):
        lasting._batch.advance(lasting._writer)
    other.join(20)
    monkeypatch.undo()
    lasting.cancel()
    rest = threading.Thread(target=lasting.finish, daemon=True)
    rest.start()
    rest.join(5)
    assert not rest.is_alive()
