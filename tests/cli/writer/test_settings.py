"""Settings as they are typed: values, what is refused, and what is doubted."""

import pytest

from nbgpt.cli.writer.settings import SETTABLE, Settings, setting, shown


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", "1", 1),
        ("temperature", "5000!", 5000),
        ("temperature", "5000 !", 5000),
        ("temperature", "0.7!", 0.7),
        ("top_k", "0", 0),
        ("seed", "None", None),
        ("seed", "null", None),
        ("greedy", "on", True),
        ("greedy", "False", False),
        ("bos", "none", None),
        ("stop", ".", "."),
        ("stop", "!", "!"),
        ("stop", '["a", "b"]', ["a", "b"]),
        ("stop", r'"\n"', "\n"),
        ("regex", "5", "5"),
        ("regex", "[ab]+", "[ab]+"),
        ("json_schema", "true", "true"),
        ("json_schema", '{"type": "object"}', '{"type": "object"}'),
        ("end", "sentence", "sentence"),
        ("color", "off", "off"),
        ("space", "off", False),
    ],
)
def test_values(name, typed, value):
    settings = Settings({}).changed(name, typed)
    assert settings[name] == value
    assert type(settings[name]) is type(value)
    assert Settings({})[name] == SETTABLE[name].default


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("temperature", "-1", "temperature is -1; it must be from 0 (greedy) to 10^9"),
        ("temperature", "-1!", "temperature is -1; it must be from 0 (greedy) to 10^9"),
        ("temperature", "warm", "temperature is 'warm'; it must be"),
        ("temperature", "0,7", "temperature is (0, 7); it must be"),
        ("top_k", "2.5", "top_k is 2.5; it must be a whole number"),
        ("greedy", "perhaps", "greedy is 'perhaps'; it must be True or False"),
        ("end", "chapter", "end is 'chapter'; choose 'length', 'sentence', 'paragraph'"),
        ("temprature", "1", "no setting is called 'temprature'; did you mean 'temperature'?"),
        ("zzz", "1", "no setting is called 'zzz'; /set lists them"),
        ("batch_size", "2", "batch_size cannot be set here; choose one of "),
        ("temperature", "5000", "temperature is 5000, which is unlikely: it is usually from 0 to 2; "),
        ("top_p", "0.01", "top_p is 0.01, which is unlikely: "),
        ("no_repeat_ngram_size", "1", "1 lets no token come twice"),
        ("max_tokens", "1000000", "max_tokens is 1000000, which is unlikely: "),
    ],
)
def test_what_is_refused(name, typed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        Settings({}).changed(name, typed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f"If it is meant: /set {name} {typed}!") == (
        "unlikely" in str(error.value) or name.startswith("no_repeat")
    )


def test_every_default_is_usual():
    assert [name for name, one in SETTABLE.items() if one.doubt(one.default)] == []


def test_what_generate_is_given():
    settings = Settings({"temperature": 0.5, "end": "sentence", "color": "model"})
    assert settings.for_generate() == {"temperature": 0.5}
    assert settings.changed("color", "probability").for_generate() == {"temperature": 0.5, "logprobs": 0}


def test_seeds():
    assert Settings({"seed": 5}).next_seed() == 5
    assert len({Settings({}).next_seed() for _ in range(5)}) > 1


def test_table():
    lines = Settings({"temperature": 0.5, "min_p": 0.1, "space": False}).table().splitlines()
    found = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines}
    assert found["temperature"] == "0.5"
    assert found["min_p"] == "0.1"
    assert (found["space"], found["end"], found["seed"]) == ("off", "length", "None")
    assert "dry_base" not in found


def test_what_a_setting_says_of_itself():
    said = Settings({"temperature": 0.5}).explained("temperature")
    assert said.startswith("temperature: divide the logits by T")
    for line in ("now: 0.5", "default: 0.8", "allowed: from 0 (greedy) to 10^9", "usual: from 0 to 2"):
        assert line in said
    for name in SETTABLE:
        assert Settings({}).explained(name).startswith(f"{name}: ")


@pytest.mark.parametrize("name", SETTABLE)
def test_what_is_shown_can_be_typed(name):
    one = setting(name)
    if one.default is not None and not one.is_converted and one.kind is not dict:
        assert Settings({}).changed(name, shown(one.default, one))[name] == one.default
