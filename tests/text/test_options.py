"""Options by their names: what they become, and one line for each that is wrong."""

import numpy as np
import pytest
from folders import TOKENIZER

from nbgpt.text.options import DRY_BREAKERS, Options, check_names, settle

SWITCHES = "greedy", "ignore_eos", "echo", "prompt_lookup"


def test_nothing_asked():
    settings = settle(TOKENIZER)
    assert settings.sampling.is_plain
    assert (settings.sampling.temperature, settings.sampling.top_k, settings.sampling.top_p) == (0.8, 40, 1)
    assert (settings.stop_texts, settings.stop_ids) == ([], {TOKENIZER.eos_id})
    assert settings.sampling.dry_sequence_breakers == frozenset()  # not looked for without DRY


@pytest.mark.parametrize(
    ("stop", "texts", "ids"),
    [
        ("\n\n", ["\n\n"], set()),
        (7, [], {7}),
        (["a", 7, np.int64(8), "b"], ["a", "b"], {7, 8}),
        ((), [], set()),
        (None, [], set()),
    ],
)
def test_stop(stop, texts, ids):
    settings = settle(TOKENIZER, stop=stop)
    assert (settings.stop_texts, settings.stop_ids) == (texts, {*ids, TOKENIZER.eos_id})
    assert settle(TOKENIZER, stop=stop, ignore_eos=True).stop_ids == ids


def test_numpys_values_are_pythons():
    settings = settle(TOKENIZER, seed=np.uint32(5), sample=np.int64(5), top_k=np.int8(3), greedy=np.True_)
    whole = settings.seed, settings.sampling.seed, settings.sample, settings.sampling.top_k
    assert [(type(n), n) for n in whole] == [(int, 5), (int, 5), (int, 5), (int, 3)]
    assert settings.sampling.temperature == 0


def test_greedy_is_temperature_zero():
    assert settle(TOKENIZER, greedy=True, temperature=0.5).sampling.temperature == 0


def test_bad_words_count_with_and_without_a_space():
    encode = TOKENIZER.encode
    words = settle(TOKENIZER, bad_words=["night", " The", [1, 2], (3,)]).sampling.bad_words
    assert words == (tuple(encode("night")), tuple(encode(" night")), tuple(encode(" The")), (1, 2), (3,))


def test_sequence_breakers_are_the_tokens_that_hold_one():
    ids = settle(TOKENIZER, dry_multiplier=0.8).sampling.dry_sequence_breakers
    for i, token in enumerate(TOKENIZER.tokens):
        assert (i in ids) == any(breaker.encode() in token for breaker in DRY_BREAKERS)
    ids = settle(TOKENIZER, dry_multiplier=0.8, dry_sequence_breakers=["th"]).sampling.dry_sequence_breakers
    assert b"th" in {TOKENIZER.tokens[i] for i in ids}
    assert settle(TOKENIZER, dry_multiplier=0.8, dry_sequence_breakers=()).sampling.dry_sequence_breakers == frozenset()


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
        settle(TOKENIZER, **options)


def test_options_that_do_not_exist():
    check_names(dict.fromkeys(Options.__annotations__))
    with pytest.raises(TypeError, match="no option is called 'temprature'; did you mean 'temperature'"):
        check_names({"temprature": 1})
    with pytest.raises(TypeError, match=r"no option is called 'qq'$"):
        check_names({"qq": 1})


def test_every_option_arrives():
    """What settle and Sampling take is what Options lists."""
    values = {"prefix": "a", "seed": 3, "max_tokens": 2, "bos": True, "logit_bias": {1: 2.0}}
    for name in Options.__annotations__:
        settle(TOKENIZER, **({name: values[name]} if name in values else {}))
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        settle(TOKENIZER, temprature=1)
