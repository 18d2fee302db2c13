"""Texts beside asyncio's loop: the same texts, and a loop that goes on."""

import asyncio
import gc
import threading
import time
from contextlib import aclosing

import numpy as np
import pytest
from folders import RECITED, reciter, write_random_model, write_text_model

import nbgpt

OPTIONS = {"temperature": 2.0, "max_tokens": 40, "ignore_eos": True}
SAFETY_NET = 20
"""Seconds after which what waits in vain gives up, so that a test fails and does not hang."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nbgpt.load(
        write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors", n_ctx=1000), threads=1
    )


async def text_of(model, prompt, **options):
    return "".join([piece async for piece in model.astream(prompt, **options)])


async def wait_until(condition):
    deadline = time.monotonic() + SAFETY_NET
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
        await wait_until(lambda: is_idle(model))  # the thread of a stream may outlive its last piece for a moment

    asyncio.run(main())


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
        return await text_of(silent, [0], max_tokens=5), await silent.agenerate([0], max_tokens=5)

    text, completion = asyncio.run(main())
    assert (text, completion.text, completion.finish_reason) == ("", "", "stop")


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_the_loop_goes_on(model, way):
    """While a request is made, and within each step of the model: there the model waits until the loop has run."""
    waited = []

    async def main():
        loop = asyncio.get_running_loop()

        def wait_for_loop():
            has_run = threading.Event()
            loop.call_soon_threadsafe(has_run.set)
            waited.append(has_run.wait(SAFETY_NET))

        class Waiting:
            def for_request(self, n_prompt):
                wait_for_loop()
                return lambda ids, logits: wait_for_loop() or logits

        options = {**OPTIONS, "max_tokens": 5, "logits_processors": [Waiting()]}
        await (model.agenerate("Once", **options) if way == "agenerate" else text_of(model, "Once", **options))

    asyncio.run(main())
    assert waited == [True] * 6


def test_several_take_turns(model):
    """Each goes on after its first piece only when all have theirs: none has to end before another begins."""
    begun = set()

    async def main():
        all_have_begun = asyncio.Event()

        async def write(name):
            pieces = []
            async for piece in model.astream("Once", seed=name, **OPTIONS):
                pieces.append(piece)
                begun.add(name)
                if len(begun) == 4:
                    all_have_begun.set()
                await asyncio.wait_for(all_have_begun.wait(), SAFETY_NET)
            return "".join(pieces)

        return await asyncio.gather(*(write(name) for name in range(4)))

    assert asyncio.run(main()) == [model.generate("Once", seed=name, **OPTIONS).text for name in range(4)]


@pytest.mark.parametrize("way", ["agenerate", "astream", "a piece of many tokens"])
def test_a_cancelled_task_stops_the_model(model, way):
    """The model is held within its fourth step until the task has ended, and then makes no further one.

    Many tokens make a piece when a stop string may have begun: the model stops within one all the same.
    """
    n_steps, has_ended = 0, threading.Event()

    async def main():
        loop = asyncio.get_running_loop()

        def cancel_in_fourth_step(ids, logits):
            nonlocal n_steps
            n_steps += 1
            if n_steps == 4:
                loop.call_soon_threadsafe(task.cancel)
                assert has_ended.wait(SAFETY_NET)
            if way == "a piece of many tokens":
                logits[:] = -np.inf
                logits[model.encode("a")[0]] = 0
            return logits

        options = {**OPTIONS, "max_tokens": 900, "logits_processors": [cancel_in_fourth_step]}
        if way == "a piece of many tokens":
            options["stop"] = "a" * 900 + "b"
        text = model.agenerate("Once", **options) if way == "agenerate" else text_of(model, "Once", **options)
        task = asyncio.create_task(text)
        with pytest.raises(asyncio.CancelledError):
            await task
        has_ended.set()
        await wait_until(lambda: is_idle(model))

    asyncio.run(main())
    assert n_steps == 4


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


def test_options_are_checked_when_they_are_given(model):
    """And not at the first piece."""
    for begin in (model.astream, model.agenerate):
        with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
            begin("Once", max_token=3)
        with pytest.raises(ValueError, match="top_k is -1"):
            begin("Once", top_k=-1)
