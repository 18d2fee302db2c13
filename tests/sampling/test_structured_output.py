"""Texts of a given form: whatever the model wants, and no likelier or less likely than the model finds what fits."""

import gc
import json
import re
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from folders import TOKENIZER, write_random_model
from hypothesis import given, settings
from hypothesis import strategies as st

import nbgpt
from nbgpt.sampling import structured_output
from nbgpt.sampling.structured_output import Constraint
from nbgpt.tokenizer import ByteBPE

WILD = {"temperature": 2.0, "top_k": 0}
SURPRISING = 30.0  # chi-square of up to 6 degrees of freedom is larger once in 20000 times


@pytest.fixture(scope="module")
def story():
    return nbgpt.load()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With a vocabulary of about 900 tokens, whose ids are not in the order of its merges."""
    return nbgpt.load(write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors"), threads=1)


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r" [A-Z][a-z]{2,8}",
        r"\d{4}-(0[1-9]|1[0-2])-\d{2}",
        r"(?i)yes|no",
        r" (red|green|blue)(, (red|green|blue)){0,3}\.",
        r"[^a-z]{5,15}",
        r"é{3}[😀-😂日本]{2}\n?",
        r'"[^"\n]{0,20}"',
        r"a/b\\c",
        r".{10}",
    ],
)
def test_patterns(story, pattern):
    for completion in story.generate(["Once upon a time", ""], n=6, regex=pattern, seed=1, **WILD):
        assert completion.finish_reason == "stop"
        assert re.fullmatch(pattern, completion.text), completion.text


CHOICES = [
    " yes",
    " no",
    " yesterday",
    "no",
    'a "quote"',
    "back\\slash",
    "two\nlines",
    "(x|y)*",
    "日本語 😀",
    "\x00",
    "^$",
]


def test_choices(story):
    completions = story.generate("Is it so?", n=60, choice=CHOICES, seed=1, temperature=20.0, top_k=0)
    assert {completion.text for completion in completions} <= set(CHOICES)
    assert len({completion.text for completion in completions}) > 4
    assert {completion.finish_reason for completion in completions} == {"stop"}


@pytest.mark.parametrize("text", CHOICES)
def test_a_single_choice_is_cut_as_the_tokenizer_does(story, text):
    assert story.generate("Is it so?", choice=[text], seed=1, **WILD).tokens == story.encode(text, bos=False)


def test_thousands_of_choices(story):
    choices = [f" number {i} of {i * i}" for i in range(5000)]
    assert story.generate("It is", choice=choices, seed=1, **WILD).text in choices


def is_person(value):
    return (
        list(value) == ["name", "age", "likes"]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and type(value["age"]) is int
        and 0 <= value["age"] <= 120
        and isinstance(value["likes"], list)
        and 1 <= len(value["likes"]) <= 3
        and {*value["likes"]} <= {"cats", "dogs", None}
    )


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["cats", "dogs", None]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (PERSON, is_person),
        (json.dumps(PERSON), is_person),
        ({"type": "boolean"}, lambda value: type(value) is bool),
        ({"type": "string", "pattern": "^[a-f]{3}$"}, lambda value: re.fullmatch("[a-f]{3}", value)),
        ({"anyOf": [{"const": 7}, {"type": "null"}]}, lambda value: value in (7, None)),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer", "minimum": 90, "maximum": 99}}},
            range(90, 100).count,
        ),
    ],
)
def test_schemas(story, schema, fits):
    for completion in story.generate("In JSON: ", n=12, json_schema=schema, seed=1, max_tokens=300, **WILD):
        value = json.loads(completion.text)
        assert fits(value), completion.text
        assert completion.text == json.dumps(value, ensure_ascii=False) or "\\" in completion.text
        assert completion.finish_reason == "stop"


def test_a_text_that_is_cut_short(story):
    completion = story.generate("Once", regex="[a-z ]{30}X", max_tokens=5, seed=1)
    assert completion.finish_reason == "length"
    assert re.fullmatch("[a-z ]{0,30}X?", completion.text)


def test_with_other_options(story):
    """Penalties, truncations, greedy, a prefix, stop strings, logprobs and samples: it still fits."""
    pattern = "[a-d]{20}"
    options = [
        {"greedy": True},
        {"repetition_penalty": 1.5, "frequency_penalty": 0.5, "top_k": 3},
        {"mirostat_tau": 3.0},
        {"min_p": 0.5, "logprobs": 2, "echo": True},
        {"top_p": 0.01, "logit_bias": {story.encode("a", bos=False)[0]: -np.inf}},
        {"logits_processors": [lambda ids, logits: -logits]},
    ]
    for one in options:
        completion = story.generate("Once", regex=pattern, seed=1, **one)
        assert re.fullmatch(("Once" if "echo" in one else "") + pattern, completion.text), (one, completion.text)
    completion = story.generate("Once", regex=pattern, prefix="abcd", seed=1)
    assert re.fullmatch("abcd[a-d]{16}", completion.text)
    completion = story.generate("Once", regex="[ab]{4}[cd]{10}", stop="c", seed=3, temperature=9.0)
    assert re.fullmatch("[ab]{4}d{0,9}", completion.text)
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("schema", [True, "true", {}], ids=repr)
def test_any_json(story, schema):
    for completion in story.generate("In JSON: ", n=12, json_schema=schema, seed=1, max_tokens=100, **WILD):
        if completion.finish_reason == "stop":
            json.loads(completion.text)
    whole = story.generate("In JSON: ", n=12, json_schema={}, seed=1, max_tokens=100, **WILD)
    assert [one.text for one in whole] == [
        one.text for one in story.generate("In JSON: ", n=12, json_schema=schema, seed=1, max_tokens=100, **WILD)
    ]
    assert any(one.finish_reason == "stop" for one in whole)


def test_end_of_text_ignored(story):
    """Another text begins, of the same form."""
    completion = story.generate("Is it so?", choice=[" yes", " no"], ignore_eos=True, max_tokens=20, seed=1, **WILD)
    texts = completion.text.split("<|endoftext|>")
    assert len(texts) > 3
    assert {*texts[:-1]} <= {" yes", " no"}


def test_two_constraints(story):
    both = [structured_output.regex(story, "[a-m]{5}"), structured_output.regex(story, "[h-z]{3,9}")]
    assert re.fullmatch("[h-m]{5}", story.generate("Once", logits_processors=both, seed=1, **WILD).text)


def test_one_constraint_for_many_texts(story):
    """Texts that grow together, and one after another, do not disturb each other."""
    form = structured_output.regex(story, " [a-z]{3,12} [0-9]{1,5}")
    prompts = ["Once", "Once upon a time", "", "Is it so?"]
    together = story.generate(prompts, n=3, logits_processors=[form], seed=1, **WILD)
    alone = [
        story.generate(prompt, sample=n, logits_processors=[form], seed=1, **WILD)
        for prompt in prompts
        for n in range(3)
    ]
    again = story.generate(prompts, n=3, regex=" [a-z]{3,12} [0-9]{1,5}", seed=1, **WILD)
    assert [one.text for one in together] == [one.text for one in alone] == [one.text for one in again]
    assert all(re.fullmatch(" [a-z]{3,12} [0-9]{1,5}", one.text) for one in together)


def test_a_session_with_a_constraint(story):
    session = story.session()
    for prompt in ("Once upon a time", "Once upon a time there", "Once upon a time"):
        options = {"regex": " [a-z]{3,12}", "seed": 2, **WILD}
        assert session.generate(prompt, **options).text == story.generate(prompt, **options).text


# --- How likely it is -------------------------------------------------------------------------------------------------


def distribution(model, prompt, choices, temperature):
    """Probability of each choice: at each place the tokens that lead to one share what the model gives them.

    Tokens that begin no choice are left out, and the end of text stands for the choice that is complete.
    """
    tokens, eos_id, p = model.tokenizer.tokens, model.tokenizer.eos_id, dict.fromkeys(choices, 0.0)
    places = [(model.encode(prompt), b"", 1.0)]
    while places:
        ids, said, reached = places.pop()
        left = [choice for choice in choices if choice.encode().startswith(said)]
        if len(left) == 1:
            p[left[0]] += reached
            continue
        longest = max(len(choice.encode()) for choice in left) - len(said)
        follow = [
            i
            for i, token in enumerate(tokens)
            if len(token) <= longest and i != eos_id and any(c.encode().startswith(said + token) for c in left)
        ]
        if said.decode() in left:
            follow.append(eos_id)
        logits = model.logits(ids)[-1].astype(np.float64)[follow] / temperature
        weights = np.exp(logits - logits.max())
        for token, share in zip(follow, weights / weights.sum(), strict=True):
            if token == eos_id:
                p[said.decode()] += reached * share
            elif reached * share > 1e-9:
                places.append(([*ids, token], said + tokens[token], reached * share))
    return np.array([p[choice] for choice in choices])


def check_distribution(model, choices, temperature, n):
    expected = distribution(model, "Is it", choices, temperature)
    assert abs(expected.sum() - 1) < 1e-6
    texts = [
        completion.text
        for completion in model.generate("Is it", n=n, choice=choices, seed=5, temperature=temperature, top_k=0)
    ]
    counts = np.array([texts.count(choice) for choice in choices])
    frequent = n * expected >= 5
    observed = [*counts[frequent], counts[~frequent].sum()]
    wanted = [*n * expected[frequent], n * expected[~frequent].sum()]
    chi_square = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True) if w > 0.5)
    assert frequent.sum() > 1
    assert chi_square < SURPRISING, (expected, counts / n)


@pytest.mark.parametrize("temperature", [5.0, 20.0])
@pytest.mark.parametrize(
    "choices", [["a", "b", "c", "Z"], [" the", " a", " night"], ["x", "xy", "xyz", "y"], ["9", "yes", "no", "日"]]
)
def test_choices_are_as_likely_as_their_tokens(model, choices, temperature):
    check_distribution(model, choices, temperature, 1500)


def test_choices_of_a_real_model(story):
    check_distribution(story, [" yes", " no", " maybe", " night"], 1.5, 300)


def test_single_tokens_share_what_the_softmax_gives_them(model):
    """In closed form: the softmax of their logits alone."""
    choices = ["a", "b", "c"]
    ids = [model.encode(choice, bos=False)[0] for choice in choices]
    logits = model.logits(model.encode("Is it"))[-1][ids].astype(np.float64)
    p = np.exp(logits - logits.max())
    np.testing.assert_allclose(distribution(model, "Is it", choices, 1.0), p / p.sum(), rtol=1e-6)


# --- Which tokens may follow ------------------------------------------------------------------------------------------


def allowed_after(follower, ids):
    """What a processor leaves after a prompt of two ids and these."""
    logits = follower(np.array([1, 2, *ids], np.int32), np.zeros(TOKENIZER.n_vocab, np.float32))
    assert set(logits.tolist()) <= {0.0, -np.inf}
    return set(np.flatnonzero(logits == 0).tolist())


@given(st.sets(st.text("ab é", min_size=1, max_size=5), min_size=1, max_size=5), st.randoms())
@settings(deadline=None, max_examples=60)
def test_what_may_follow(choices, random):
    """Tokens that lead to a choice, and the end of text exactly where one ends.

    Where one token after another is the only text there is, it is cut as the tokenizer does; no more may follow.
    """
    tokens, eos_id = TOKENIZER.tokens, TOKENIZER.eos_id
    choices = [choice.encode() for choice in choices]
    follower = Constraint(TOKENIZER, "choice", [choice.decode() for choice in choices]).for_request(2)
    ids, said = [], b""
    while True:
        allowed = allowed_after(follower, ids)
        left = [choice for choice in choices if choice.startswith(said)]
        fitting = {i for i, token in enumerate(tokens) if i != eos_id and any(c.startswith(said + token) for c in left)}
        assert allowed - {eos_id} <= fitting
        assert (eos_id in allowed) == (said in choices)
        firsts = {choice[len(said)] for choice in left if choice != said}
        if len(firsts) + (said in choices) > 1:
            assert allowed - {eos_id} == fitting
        elif fitting:
            assert allowed - {eos_id}
        if allowed == {eos_id}:
            break
        ids.append(random.choice(sorted(allowed - {eos_id})))
        said += tokens[ids[-1]]


def test_the_place_is_found_again():
    """A text that was taken back or goes on in another way, as beams do."""
    follower = Constraint(TOKENIZER, "regex", "a{0,3}b?").for_request(2)
    fresh = Constraint(TOKENIZER, "regex", "a{0,3}b?")
    a, b = (TOKENIZER.encode(letter)[0] for letter in "ab")
    for ids in ([], [a], [a, a], [a, b], [a], [b], [a, a, a], []):
        assert allowed_after(follower, ids) == allowed_after(fresh.for_request(2), ids)


def test_ids_beyond_the_vocabulary_are_banned():
    logits = np.zeros(TOKENIZER.n_vocab + 7, np.float32)
    logits = Constraint(TOKENIZER, "regex", ".*").for_request(0)(np.array([], np.int32), logits)
    assert (logits[TOKENIZER.n_vocab :] == -np.inf).all()
    assert logits[TOKENIZER.eos_id] == 0
    assert np.isfinite(logits[: TOKENIZER.n_vocab]).sum() > 100


# --- What is refused --------------------------------------------------------------------------------------------------

A_LIST = "it must be a list of texts, none of them empty"
A_PATTERN = "it must be a regular expression without look-around and references, that fits some text"
A_SCHEMA = "it must be a JSON schema, as an object or as text"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("choice", [], f"choice is []; {A_LIST}"),
        ("choice", "yes", f"choice is 'yes'; {A_LIST}"),
        ("choice", ["yes", ""], f"choice is ['yes', '']; {A_LIST}"),
        ("choice", [1, 2], f"choice is [1, 2]; {A_LIST}"),
        ("choice", 3, f"choice is 3; {A_LIST}"),
        ("choice", {"yes": 1}, f"choice is {{'yes': 1}}; {A_LIST}"),
        ("regex", "(", f"regex is '(' (unclosed group); {A_PATTERN}"),
        (
            "regex",
            "[z-a]",
            f"regex is '[z-a]' (invalid character class range, the start must be <= the end); {A_PATTERN}",
        ),
        ("regex", r"(a)\1", rf"regex is '(a)\\1' (backreferences are not supported); {A_PATTERN}"),
        ("regex", r"[^\x00-\U0010ffff]", rf"regex is '[^\\x00-\\U0010ffff]' (it fits no text); {A_PATTERN}"),
        ("regex", b"a", f"regex is b'a' ('bytes' object is not an instance of 'str'); {A_PATTERN}"),
        ("json_schema", {"type": "strin"}, f"json_schema is {{'type': 'strin'}} (Invalid type: strin); {A_SCHEMA}"),
        (
            "json_schema",
            {"properties": 4},
            f"json_schema is {{'properties': 4}} (properties must be an object); {A_SCHEMA}",
        ),
        (
            "json_schema",
            {"enum": []},
            f"json_schema is {{'enum': []}} (Unsatisfiable schema: anyOf is empty); {A_SCHEMA}",
        ),
        (
            "json_schema",
            {"a": {1}},
            f"json_schema is {{'a': {{1}}}} (Object of type set is not JSON serializable); {A_SCHEMA}",
        ),
        ("json_schema", 3, "json_schema is 3 ("),
        ("json_schema", [], "json_schema is [] ("),
        ("json_schema", False, f"json_schema is False (it fits no text); {A_SCHEMA}"),
        ("json_schema", " false\n", "(it fits no text)"),
        ("json_schema", "{", "json_schema is '{' (EOF while parsing"),
        (
            "json_schema",
            {"type": "integer", "minimum": 3, "maximum": 2},
            "(Unsatisfiable schema: minimum (3) is greater",
        ),
        ("json_schema", {"$ref": "#/nowhere"}, "(Pointer '/nowhere' does not exist)"),
    ],
)
def test_what_is_no_form(model, option, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        model.generate("Once", **{option: value})
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{option} is ")


def test_a_long_value_is_shortened(model):
    with pytest.raises(ValueError, match=r"regex is 'a{12}\.\.\.a{12}\(' \(unclosed group\); it must be"):
        model.generate("Once", regex="a" * 1000 + "(")


@pytest.mark.parametrize("convert", [lambda schema: schema, lambda schema: '{"items":' * 99999 + "{}" + "}" * 99999])
def test_a_schema_that_is_too_deep(model, convert):
    schema = {}
    for _ in range(99999):
        schema = {"items": schema}
    with pytest.raises(ValueError, match=r"json_schema is .{,80} .*(recursion|Stack overflow)"):
        model.generate("Once", json_schema=convert(schema))


def test_a_prefix_that_does_not_fit(model):
    with pytest.raises(ValueError, match=r"choice is \['yes'\]; a text cannot begin with 'no' \(.*"):
        model.generate("Once", choice=["yes"], prefix="no")


def test_an_end_that_may_not_be(model):
    with pytest.raises(ValueError, match=r"every token is banned: check .*min_tokens, choice, regex"):
        model.generate("Once", choice=["a"], min_tokens=5, max_tokens=9)
    with pytest.raises(ValueError, match=r"every token is banned: check .*min_tokens, choice, regex"):
        model.generate("Once", choice=["a"], regex="b", max_tokens=9)


def test_without_the_library(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    message = r'regex needs the package llguidance: pip install "nbgpt\[constrain\]"'
    with pytest.raises(ImportError, match=message):
        model.generate("Once", regex="a")
    with pytest.raises(ImportError, match=message):
        structured_output.regex(model, "a")


def test_vocabularies_go_with_their_tokenizers():
    gc.collect()
    before = len(structured_output._VOCABULARIES)
    tokenizer = ByteBPE.shipped()
    Constraint(tokenizer, "regex", "a").for_request(0)(np.array([], np.int32), np.zeros(tokenizer.n_vocab, np.float32))
    Constraint(tokenizer, "regex", "b")
    assert len(structured_output._VOCABULARIES) == before + 1
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None
    assert len(structured_output._VOCABULARIES) == before


def test_two_threads_that_need_a_vocabulary_at_once(monkeypatch):
    both, made, said = threading.Barrier(2, timeout=30), structured_output._Vocabulary, []
    monkeypatch.setattr(structured_output, "_Vocabulary", lambda tokenizer: (both.wait(), made(tokenizer))[1])
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    tokenizer = ByteBPE.from_merges("")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(structured_output._vocabulary, [tokenizer] * 2)
    assert first is second
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None
    assert said == []
