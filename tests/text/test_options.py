"""Options: what each becomes, one line for each that is wrong, and declarations that agree with what is offered."""

import numpy as np
import pytest
from folders import TOKENIZER

from nbgpt.sampling.declaration import GROUPS
from nbgpt.sampling.params import DRY_BREAKERS, SamplingParams
from nbgpt.text.options import OPTIONS, Options, parse

SWITCHES = "greedy", "ignore_eos", "echo", "prompt_lookup"


def ids_level(**options):
    """The parameters in terms of ids."""
    params, _ = parse(TOKENIZER, options)
    return params


def test_nothing_asked():
    params, text = parse(TOKENIZER, {})
    assert params == SamplingParams(stop_ids=frozenset({TOKENIZER.eos_id}))
    assert (params.temperature, params.top_k, params.top_p, params.max_tokens) == (0.8, 40, 1, 200)
    assert (text.stop, text.has_max_tokens, text.has_seed) == ((), False, False)
    assert params.dry_sequence_breakers == frozenset()  # not looked for without DRY


@pytest.mark.parametrize(
    ("stop", "texts", "ids"),
    [
        ("\n\n", ("\n\n",), set()),
        (7, (), {7}),
        (["a", 7, np.int64(8), "b"], ("a", "b"), {7, 8}),
        ((), (), set()),
        (None, (), set()),
    ],
)
def test_stop(stop, texts, ids):
    params, text = parse(TOKENIZER, {"stop": stop})
    assert (text.stop, params.stop_ids) == (texts, {*ids, TOKENIZER.eos_id})
    assert ids_level(stop=stop, ignore_eos=True).stop_ids == ids


def test_numpys_values_are_pythons():
    options = {"seed": np.uint32(5), "sample": np.int64(5), "top_k": np.int8(3), "max_tokens": np.uint8(7)}
    params, text = parse(TOKENIZER, {**options, "greedy": np.True_, "batch_size": np.int16(2)})
    whole = params.seed, params.sample, params.top_k, params.max_tokens, text.batch_size
    assert [(type(n), n) for n in whole] == [(int, n) for n in (5, 5, 3, 7, 2)]
    assert params.temperature == 0


def test_what_is_none_is_the_default():
    params, text = parse(TOKENIZER, {"max_tokens": None, "seed": None, "stop": None, "bos": None, "logprobs": None})
    assert (params, text) == parse(TOKENIZER, {})
    params, text = parse(TOKENIZER, {"max_tokens": 200, "seed": 0})
    assert (text.has_max_tokens, text.has_seed) == (True, True)


def test_greedy_is_temperature_zero():
    assert ids_level(greedy=True, temperature=0.5).temperature == 0


def test_a_prefix_is_ids():
    assert ids_level(prefix=" The night").prefix == tuple(TOKENIZER.encode(" The night"))


def test_bad_words_count_with_and_without_a_space():
    encode = TOKENIZER.encode
    words = ids_level(bad_words=["night", " The", [1, 2], (3,)]).bad_words
    assert words == (tuple(encode("night")), tuple(encode(" night")), tuple(encode(" The")), (1, 2), (3,))


def test_sequence_breakers_are_the_tokens_that_hold_one():
    ids = ids_level(dry_multiplier=0.8).dry_sequence_breakers
    for i, token in enumerate(TOKENIZER.tokens):
        assert (i in ids) == any(breaker.encode() in token for breaker in DRY_BREAKERS)
    ids = ids_level(dry_multiplier=0.8, dry_sequence_breakers=["th"]).dry_sequence_breakers
    assert b"th" in {TOKENIZER.tokens[i] for i in ids}
    assert ids_level(dry_multiplier=0.8, dry_sequence_breakers=()).dry_sequence_breakers == frozenset()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": 1.5}, "stop has 1.5; it must be a text of at least one character, a token id, or a list of them"),
        ({"stop": ["a", None]}, "stop has None; it must be"),
        ({"stop": ""}, "stop has ''; it must be"),
        ({"stop": [True]}, "stop has True; it must be"),
        ({"stop": b"end"}, "stop has b'end'; it must be"),
        ({"stop": [b"end"]}, "stop has b'end'; it must be"),
        ({"bad_words": [b"ab"]}, "bad_words has b'ab'; each must be a text or a list of token ids"),
        *[({"prefix": value}, "prefix is .*; it must be a text") for value in (5, b"x", 0, None, [], {})],
        *[({"sample": value}, "sample is .*; it must be a whole number from 0") for value in ("x", None, 1.5, -1)],
        *[({"seed": value}, "seed is .*; it must be a whole number from 0") for value in ("x", 1.5, -1)],
        *[({name: "false"}, f"{name} is 'false'; it must be True or False") for name in SWITCHES],
        *[({name: None}, f"{name} is None; it must be True or False") for name in SWITCHES],
        ({"bad_words": "night"}, "bad_words is 'night'; it must be a list"),
        ({"bad_words": [1, 2]}, "bad_words has 1; each must be a text or a list of token ids"),
        ({"bad_words": [""]}, "bad_words has an empty one; each must have at least one token"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": "\n"}, r"dry_sequence_breakers is '\\n'; it must be a list"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": [3]}, "dry_sequence_breakers has 3; each must be a text"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": ["qzqzqz"]}, "'qzqzqz'; each must stand in some token"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": [""]}, "''; each must stand in some token"),
        ({"logits_processors": print}, "logits_processors is <built-in function print>; it must be a list"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1 on"),
        ({"top_p": 1.5}, r"top_p is 1.5; it must be above 0 and at most 1 \(off\)"),
        ({"temperature": -1, "greedy": True}, "temperature is -1; it must be"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        parse(TOKENIZER, options)


def test_options_that_do_not_exist():
    with pytest.raises(TypeError, match="no option is called 'temprature'; did you mean 'temperature'"):
        parse(TOKENIZER, {"temprature": 1})
    with pytest.raises(TypeError, match=r"no option is called 'qq'$"):
        parse(TOKENIZER, {"qq": 1})


# Declarations


def test_the_typed_dict_is_what_is_declared():
    assert {name: one.annotation for name, one in OPTIONS.items()} == {
        name: annotation.__forward_arg__ for name, annotation in Options.__annotations__.items()
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_a_declaration_is_whole(name):
    one = OPTIONS[name]
    assert one.name == name
    assert one.group in GROUPS
    assert one.help
    assert not one.help.endswith(".")
    assert one.default is not None or one.stored is not None or "None" in one.annotation


@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_is_allowed_and_changes_nothing(name):
    assert parse(TOKENIZER, {name: OPTIONS[name].default}) == parse(TOKENIZER, {})


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if one.allowed or one.choices])
def test_what_is_declared_is_checked(name):
    """With the message that the docs show."""
    with pytest.raises(ValueError, match=f"^{name} is <object") as caught:
        parse(TOKENIZER, {name: object()})
    assert all(str(part) in str(caught.value) for part in (OPTIONS[name].allowed, *OPTIONS[name].choices))
