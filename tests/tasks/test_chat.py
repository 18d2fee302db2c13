"""A conversation: the prompt of each turn, written by hand; what is left out; the same text as `generate`."""

import pytest

import nbgpt
from nbgpt.tasks.chat import Chat
from nbgpt.tasks.chat_template import ChatTemplate

OPTIONS = {"max_tokens": 12, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


def generated(model, prompt):
    """What `generate` makes of a prompt, as an answer."""
    return model.generate(prompt, stop=["\nuser:", "\nsystem:", "\nassistant:"], **OPTIONS).text.strip()


def test_turns(model):
    chat = Chat(model, system="Be kind.", **OPTIONS)
    assert "".join(chat.stream("Who are you?")).rstrip() == chat.exchanges[0][1]
    first = generated(model, "system: Be kind.\nuser: Who are you?\nassistant:")
    "".join(chat.stream("And then?"))
    prompt = f"system: Be kind.\nuser: Who are you?\nassistant: {first}\nuser: And then?\nassistant:"
    assert chat.exchanges == [("Who are you?", first), ("And then?", generated(model, prompt))]
    assert chat.n_dropped == 0


def test_the_oldest_exchanges_are_left_out(model):
    chat = Chat(model, system="S", **OPTIONS)
    chat.exchanges = [(f"number {n} " * 40, "yes") for n in range(12)]
    "".join(chat.stream("last"))
    turns = [f"user: {message}\nassistant: {answer}\n" for message, answer in chat.exchanges[:-1]]

    def prompt(n_dropped):
        return "system: S\n" + "".join(turns[n_dropped:]) + "user: last\nassistant:"

    fits = [len(model.encode(prompt(n))) + OPTIONS["max_tokens"] <= model.config.n_ctx for n in range(12)]
    assert chat.n_dropped == fits.index(True) > 0
    assert chat.exchanges[-1] == ("last", generated(model, prompt(chat.n_dropped)))


def test_a_message_that_never_fits(model):
    chat = Chat(model, **OPTIONS)
    chat.exchanges = [("a", "b")]
    room = model.config.n_ctx - OPTIONS["max_tokens"]
    with pytest.raises(ValueError, match=rf"a prompt of \d+ tokens; .* has room for {room}: shorten it"):
        next(chat.stream("word " * 2000))
    assert chat.exchanges == [("a", "b")]


def test_an_answer_that_is_closed_early_stands_as_far_as_it_was_read(model):
    chat = Chat(model, **OPTIONS)
    answer = chat.stream("Who are you?")
    piece = next(answer)
    answer.close()
    assert chat.exchanges == [("Who are you?", piece.rstrip())]


def test_stops_of_the_template_and_of_the_caller(model):
    letter = ChatTemplate(lambda messages: messages[-1]["content"], ("w",))
    chat = Chat(model, letter, stop="a", max_tokens=30, seed=3)
    text = "".join(chat.stream("Once upon a time"))
    plain = model.generate("Once upon a time", max_tokens=30, seed=3).text.lstrip()
    assert text == plain[: min(plain.index("a"), plain.index("w"))]
