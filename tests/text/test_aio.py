"""Texts beside asyncio's loop: the same texts, and a loop that goes on."""

import asyncio
import gc
import threading
import time
from contextlib import aclosing

import pytest
from folders import RECITED, reciter, text_config, write_text_model
from models import random_params

import nbgpt

OPTIONS = {"temperature": 2.0, "max_tokens": 40, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = text_config(n_layer=12, n_head=4, n_embd=256, n_ctx=1000)  # some milliseconds a token
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    return nbgpt.load(write_text_model(path, config, random_params(config)), threads=1)


async def text_of(model, prompt, **options):
    return "".join([piece async for piece in model.astream(prompt, **options)])


async def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def is_idle(model):
    """Nobody works for a stream any more, and nothing is left of its text."""
    return not model.engine.kv_bytes_in_use and not any("asyncio-nbgpt" in t.name for t in threading.enumerate())


def test_the_same_pieces(model):
    async def pieces():
        return [piece async for piece in model.astream("Once", seed=1, **OPTIONS)]

    assert asyncio.run(pieces()) == list(model.stream("Once", seed=1, **OPTIONS))


def test_a_session(model):
    """It keeps what it has read, when it is left in the middle too."""
    alone = str(model.generate("Once upon", seed=1, **OPTIONS))

    async def main():
        with model.session() as session:
            assert await text_of(session, "Once upon", seed=1, **OPTIONS) == alone
            assert len(session) > OPTIONS["max_tokens"]
            async with aclosing(session.astream("Once upon", seed=1, **OPTIONS)) as pieces:
                assert alone.startswith(await anext(pieces))
            await wait_until(lambda: not any("asyncio-nbgpt" in t.name for t in threading.enumerate()))
            assert await text_of(session, "Once upon", seed=1, **OPTIONS) == alone
            with pytest.raises(ValueError, match="top_p is 2"):
                await text_of(session, "Once", top_p=2)
        with pytest.raises(RuntimeError, match="this session is closed"):
            await text_of(session, "Once")

    asyncio.run(main())
    assert is_idle(model)


def test_the_same_completions(model):
    def facts(completion):
        return completion.text, completion.tokens, completion.finish_reason, completion.usage, completion.seed

    async def main():
        one = await model.agenerate("Once", seed=1, **OPTIONS)
        several = await model.agenerate(["Once", "", "It was"], n=2, seed=1, **OPTIONS)
        return facts(one), [facts(each) for each in several], await model.agenerate("Once", n=1, seed=1, **OPTIONS)

    one, several, listed = asyncio.run(main())
    assert one == facts(model.generate("Once", seed=1, **OPTIONS)) == facts(listed[0])
    assert several == [facts(each) for each in model.generate(["Once", "", "It was"], n=2, seed=1, **OPTIONS)]


def test_a_text_without_pieces(tmp_path):
    silent = nbgpt.load(write_text_model(tmp_path / "m.safetensors", *reciter("")))

    async def main():
        return await text_of(silent, "", max_tokens=5), await silent.agenerate("", max_tokens=5)

    text, completion = asyncio.run(main())
    assert (text, completion.text, completion.finish_reason) == ("", "", "stop")


def test_the_loop_goes_on(model):
    """Something that wants to run every millisecond does, while a text is made."""
    gaps = []

    async def tick():
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async def main():
        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        gaps.clear()
        started = time.perf_counter()
        completion = await model.agenerate("word " * 300, seed=1, **OPTIONS)
        seconds = time.perf_counter() - started
        ticker.cancel()
        return completion, seconds

    completion, seconds = asyncio.run(main())
    assert completion.usage.completion_tokens == 40
    assert completion.timing.prefill_seconds > 0.02  # one pass, which would have been one gap
    assert max(gaps) < seconds / 2
    assert sorted(gaps)[len(gaps) // 2] < seconds / 10


def test_several_take_turns(model):
    order = []

    async def write(name):
        pieces = []
        async for piece in model.astream("Once", seed=name, **OPTIONS):
            order.append(name)
            pieces.append(piece)
        return "".join(pieces)

    async def main():
        return await asyncio.gather(*(write(name) for name in range(4)))

    assert asyncio.run(main()) == [model.generate("Once", seed=name, **OPTIONS).text for name in range(4)]
    starts = [order.index(name) for name in range(4)]
    ends = [len(order) - 1 - order[::-1].index(name) for name in range(4)]
    assert max(starts) < min(ends)


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_a_cancelled_task_stops_the_model(model, way):
    read = []

    def watch(ids, logits):
        read.append(time.monotonic())
        return logits

    async def main():
        options = {**OPTIONS, "max_tokens": 900, "logits_processors": [watch]}
        if way == "agenerate":
            task = asyncio.create_task(model.agenerate("Once", **options))
        else:
            task = asyncio.create_task(text_of(model, "Once", **options))
        await wait_until(lambda: len(read) > 3)
        task.cancel()
        n_read = len(read)
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: is_idle(model))
        return n_read

    n_read = asyncio.run(main())
    assert n_read <= len(read) <= n_read + 2


def test_a_cancelled_task_whose_piece_takes_long(model):
    """Many tokens make a piece when a stop text may have begun: the model stops within one all the same."""
    read = []

    def same(ids, logits):
        read.append(0)
        logits[:] = -1e9
        logits[model.encode("a")[0]] = 0
        return logits

    async def main():
        options = {"stop": "a" * 900 + "b", "max_tokens": 950, "ignore_eos": True, "logits_processors": [same]}
        task = asyncio.create_task(text_of(model, "", **options))
        await wait_until(lambda: len(read) > 3)
        task.cancel()
        await asyncio.wait([task])
        await wait_until(lambda: is_idle(model))

    asyncio.run(main())
    assert 3 < len(read) < 500


def test_a_stream_that_is_left(model):
    async def main():
        async for _ in model.astream("Once", **{**OPTIONS, "max_tokens": 900}):
            break
        gc.collect()
        await wait_until(lambda: is_idle(model))
        async with aclosing(model.astream("Once", **{**OPTIONS, "max_tokens": 900})) as pieces:
            await anext(pieces)
        await wait_until(lambda: is_idle(model))

    asyncio.run(main())


def test_nothing_is_made_that_nobody_asks_for(model):
    read = []

    async def main():
        options = {**OPTIONS, "logits_processors": [lambda ids, logits: read.append(0) or logits]}
        async with aclosing(model.astream("Once", **options)) as pieces:
            await anext(pieces)
            n_read = len(read)
            await asyncio.sleep(0.1)
            assert len(read) == n_read

    asyncio.run(main())


def test_errors_arrive(model):
    async def main():
        with pytest.raises(ValueError, match=r"top_p is 1\.5"):
            await text_of(model, "Once", top_p=1.5)
        with pytest.raises(ValueError, match="n is 0"):
            await model.agenerate("Once", n=0)
        with pytest.raises(TypeError, match="no option is called 'top_q'"):
            await model.agenerate("Once", top_q=1)
        with pytest.raises(ZeroDivisionError):
            await text_of(model, "Once", logits_processors=[lambda ids, logits: 1 / 0])
        await wait_until(lambda: is_idle(model))

    asyncio.run(main())


def test_characters_come_whole(tmp_path):
    recital = nbgpt.load(write_text_model(tmp_path / "m.safetensors", *reciter()))
    assert asyncio.run(text_of(recital, "", max_tokens=100)) == RECITED
