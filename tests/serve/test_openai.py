"""OpenAI's own client against a server process: each answer equals what `Model.generate` gives for the same options."""

import base64
import inspect
import json
import re

import numpy as np
import openai
import pytest
from servers import STORY, serving

import nbgpt
from nbgpt.text.options import OPTIONS

PROMPT = "Once upon a time there was a ship, and the ship"
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
BASE = {"max_tokens": 12, "seed": 7}

SAME = {
    "nothing": {},
    "greedy": {"greedy": True},
    "temperature": {"temperature": 1.5},
    "temperature 0": {"temperature": 0},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.3},
    "epsilon_cutoff": {"epsilon_cutoff": 0.02},
    "eta_cutoff": {"eta_cutoff": 0.02},
    "mirostat": {"mirostat_tau": 3.0, "mirostat_eta": 0.2},
    "sample": {"sample": 4},
    "max_tokens 1": {"max_tokens": 1},
    "min_tokens": {"min_tokens": 6, "stop": ["a", "e"]},
    "ignore_eos": {"ignore_eos": True},
    "max_time": {"max_time": 500.0},
    "bos": {"bos": True},
    "special": {"special": True},
    "prefix": {"prefix": " sailed"},
    "repetition_penalty": {"repetition_penalty": 1.4, "temperature": 0},
    "presence_penalty": {"presence_penalty": 1.5, "temperature": 0},
    "frequency_penalty": {"frequency_penalty": 1.5, "temperature": 0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1, "temperature": 0},
    "dry": {
        "dry_multiplier": 2.0,
        "dry_base": 2.0,
        "dry_allowed_length": 1,
        "dry_sequence_breakers": ["."],
        "temperature": 0,
    },
    "bad_words": {"bad_words": ["the", "was"]},
    "stop": {"stop": " the"},
    "several stops": {"stop": ["the ", "\n", "zzz"]},
    "stop ids": {"stop": [262, 373]},
    "echo": {"echo": True},
    "logprobs": {"logprobs": 0},
    "likeliest": {"logprobs": 5},
    "echo with logprobs": {"echo": True, "logprobs": 2},
    "stop with logprobs": {"stop": [" the", "zzz"], "logprobs": 1, "max_tokens": 30},
    "prompt_lookup": {"prompt_lookup": True, "greedy": True, "max_tokens": 40},
    "truncate_left": {"overflow": "truncate_left"},
    "keep_first": {"overflow": "keep_first"},
}
"""What a body has as `Model.generate` has it."""
TRANSLATED = {
    "logit_bias": ({"logit_bias": {"262": -100, "11": 3.5}}, {"logit_bias": {262: -100, 11: 3.5}}),
    "guided_choice": ({"guided_choice": [" sank", " sailed away"]}, {"choice": [" sank", " sailed away"]}),
    "guided_regex": ({"guided_regex": r" \d\d [a-f]+\."}, {"regex": r" \d\d [a-f]+\."}),
    "guided_json": ({"guided_json": SCHEMA}, {"json_schema": SCHEMA}),
    "json as text": ({"guided_json": json.dumps(SCHEMA)}, {"json_schema": json.dumps(SCHEMA)}),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}},
        {"json_schema": SCHEMA},
    ),
    "json_object": ({"response_format": {"type": "json_object"}}, {"json_schema": True}),
    "free text": ({"response_format": {"type": "text"}}, {}),
    "user": ({"user": "somebody", "metadata": {"a": "b"}}, {}),
}
"""What a body has in OpenAI's or vLLM's form: the body, the options of `Model.generate`."""
CASES = {name: (options, options) for name, options in SAME.items()} | TRANSLATED


def create(client, route="completions", **body):
    """A request: what the client's method has no argument for goes in extra_body."""
    method = {"completions": client.completions.create, "chat": client.chat.completions.create}[route]
    known = inspect.signature(method).parameters
    extra = {name: body.pop(name) for name in [*body] if name not in known}
    return method(**{"model": STORY, **body}, extra_body=extra)


def gathered(stream):
    """The choices of a stream, put together: text, logprobs, finish_reason and seed by index; and its usage."""
    choices, usage, heads = {}, None, set()
    for chunk in stream:
        heads.add((chunk.id, chunk.model, chunk.object, chunk.system_fingerprint))
        usage = chunk.usage or usage
        for choice in chunk.choices:
            one = choices.setdefault(choice.index, {"text": "", "logprobs": None})
            assert "finish_reason" not in one, "a chunk came after the last one"
            if choice.logprobs:
                one["logprobs"] = one["logprobs"] or {}
                for name, values in choice.logprobs.model_dump().items():
                    one["logprobs"].setdefault(name, []).extend(values)
            if "seed" in (choice.model_extra or {}):
                one["seed"] = choice.seed
            one["text"] += choice.text
            if choice.finish_reason:
                one["finish_reason"] = choice.finish_reason
    assert len(heads) == 1
    return [choices[index] for index in sorted(choices)], usage


def whole(completion):
    """The choices of an answer in the form of `gathered`."""
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))
    choices = [
        {
            "text": choice.text,
            "logprobs": choice.logprobs and choice.logprobs.model_dump(),
            "finish_reason": choice.finish_reason,
            "seed": choice.seed,
        }
        for choice in completion.choices
    ]
    return choices, completion.usage


def assert_equal(choice, completion):
    """A choice is this completion of `Model.generate`, to the bit."""
    assert choice["text"] == completion.text
    assert choice["finish_reason"] == completion.finish_reason
    assert choice["seed"] == completion.seed
    measured = completion.logprobs
    assert (choice["logprobs"] is None) == (measured is None)
    if measured is not None:
        logprobs = choice["logprobs"]
        assert logprobs["token_ids"] == completion.tokens
        said = "".join(logprobs["tokens"])
        assert said.startswith(completion.text)
        assert said == completion.text or completion.finish_reason == "stop"  # its last token has the stop string
        assert logprobs["token_logprobs"] == [one.logprob for one in measured]
        assert [{top["id"]: top["logprob"] for top in tops} for tops in logprobs["top_tokens"]] == [
            one.top for one in measured
        ]
        starts = np.cumsum([0, *(len(one.text) for one in measured)])[:-1]
        assert logprobs["text_offset"] == starts.tolist()


def assert_usage(usage, prompts, completions):
    assert usage.prompt_tokens == sum(map(len, prompts))
    assert usage.completion_tokens == sum(one.usage.completion_tokens for one in completions)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_every_option_of_generate_has_its_case():
    tested = {name for _, options in CASES.values() for name in options} | {*BASE}
    assert {*OPTIONS} - tested == {"logits_processors", "draft_model", "batch_size"}, "these are not offered"


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_what_generate_gives(client, story, name):
    body, options = CASES[name]
    expected = story.generate(PROMPT, **{**BASE, **options})
    choices, usage = whole(create(client, prompt=PROMPT, **{**BASE, **body}))
    assert len(choices) == 1
    assert_equal(choices[0], expected)
    assert_usage(usage, [story.encode(PROMPT, options.get("bos"))], [expected])


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_what_generate_gives(client, story, name):
    body, options = CASES[name]
    expected = story.generate(PROMPT, **{**BASE, **options})
    stream = create(client, prompt=PROMPT, **{**BASE, **body}, stream=True, stream_options={"include_usage": True})
    choices, usage = gathered(stream)
    assert len(choices) == 1
    assert_equal(choices[0], expected)
    assert_usage(usage, [story.encode(PROMPT, options.get("bos"))], [expected])


PROMPTS = {
    "text": "The sea",
    "texts": ["The sea", "A much longer prompt about nothing in particular"],
    "ids": [464, 5417],
    "lists of ids": [[464, 5417], [1026, 373]],
    "no text": "",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("n", [1, 3])
def test_prompts_of_every_kind_and_n_samples_of_each(client, story, kind, n, stream):
    prompt = PROMPTS[kind]
    listed = prompt if kind in ("texts", "lists of ids") else [prompt]
    expected = story.generate(listed, n=n, max_tokens=8, seed=3, logprobs=1)
    answer = create(client, prompt=prompt, n=n, max_tokens=8, seed=3, logprobs=1, stream=stream)
    choices, usage = gathered(answer) if stream else whole(answer)
    assert len(choices) == len(expected) == n * len(listed)
    for choice, completion in zip(choices, expected, strict=True):
        assert_equal(choice, completion)
    if stream:
        assert usage is None, "nobody asked for it"
    else:
        assert_usage(usage, map(story.encode, listed), expected)


def test_best_of_returns_the_likeliest_by_token(client, story):
    prompts = ["The sea", "It was"]
    answer = create(client, prompt=prompts, n=2, best_of=5, max_tokens=8, seed=3)
    samples = story.generate(prompts, n=5, max_tokens=8, seed=3, logprobs=0)
    expected = []
    for start in (0, 5):
        expected += sorted(samples[start : start + 5], key=lambda one: -np.mean([p.logprob for p in one.logprobs]))[:2]
    assert [choice.text for choice in answer.choices] == [one.text for one in expected]
    assert [choice.logprobs for choice in answer.choices] == [None] * 4
    assert_usage(answer.usage, map(story.encode, prompts), samples)


def test_without_a_seed_the_answer_says_which_it_was(client, story):
    first, second = (create(client, prompt=PROMPT, max_tokens=12).choices[0] for _ in range(2))
    assert first.seed != second.seed
    assert create(client, prompt=PROMPT, max_tokens=12, seed=first.seed).choices[0].text == first.text
    assert story.generate(PROMPT, max_tokens=12, seed=second.seed).text == second.text


def test_tokens_that_are_parts_of_characters_stream_as_characters(client, models):
    prompt = "😀 it"
    expected = models["tiny"].generate(prompt, max_tokens=60, seed=1, top_k=0, logprobs=3, temperature=3)
    stream = create(
        client, model="tiny", prompt=prompt, max_tokens=60, seed=1, top_k=0, logprobs=3, temperature=3, stream=True
    )
    choices, _ = gathered(stream)
    assert_equal(choices[0], expected)


def test_a_stream_comes_while_it_is_made(client):
    with create(client, prompt=PROMPT, max_tokens=200, greedy=True, stream=True) as stream:
        assert sum(bool(chunk.choices[0].text) for chunk in stream) > 2


def test_the_fingerprint_is_that_of_the_weights(client, server):
    prints = {create(client, model=name, prompt="a", max_tokens=1).system_fingerprint for name in (STORY, "tiny")}
    assert len(prints) == 2
    assert {model["system_fingerprint"] for model in server.get("/v1/models").json()["data"]} >= prints


def test_models(client, models):
    listed = {model.id: model for model in client.models.list()}
    assert list(listed) == [*models], "the first one answers who names none"
    assert {name: model.max_model_len for name, model in listed.items()} == {
        name: model.config.n_ctx for name, model in models.items()
    }
    assert client.models.retrieve("tiny") == listed["tiny"]


def test_each_model_answers_for_itself(client, models):
    for name, model in models.items():
        text = create(client, model=name, prompt="it was", **BASE).choices[0].text
        assert text == model.generate("it was", **BASE).text


# --- Chat -------------------------------------------------------------------------------------------------------------

MESSAGES = [
    {"role": "system", "content": "A talk about ships."},
    {"role": "user", "content": "What did you see?"},
]
TRANSCRIPT = "system: A talk about ships.\nuser: What did you see?\nassistant:"
TURNS = ["\nuser:", "\nsystem:", "\nassistant:"]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({}, {}),
        ({"n": 3}, {}),
        ({"stop": "."}, {"stop": [".", *TURNS]}),
        ({"temperature": 0, "frequency_penalty": 1}, {"temperature": 0, "frequency_penalty": 1}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"top_k": 2}, {"top_k": 2}),
    ],
)
def test_a_conversation_is_continued_by_the_template(client, story, body, options):
    base = {"seed": 5, "max_tokens": 20}
    if "max_completion_tokens" in body:
        del base["max_tokens"]
    expected = story.generate(TRANSCRIPT, n=body.get("n", 1), **{**base, "stop": TURNS, **options})
    answer = create(client, "chat", messages=MESSAGES, **base, **body)
    assert [choice.message.content for choice in answer.choices] == [one.text.removeprefix(" ") for one in expected]
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert [choice.finish_reason for choice in answer.choices] == [one.finish_reason for one in expected]
    assert_usage(answer.usage, [story.encode(TRANSCRIPT)], expected)
    texts = [""] * len(expected)
    logprobs = [[] for _ in expected]
    for chunk in create(client, "chat", messages=MESSAGES, **base, **body, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            logprobs[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert texts == [one.text.removeprefix(" ") for one in expected]
    for choice, streamed, one in zip(answer.choices, logprobs, expected, strict=True):
        if one.logprobs is None:
            assert choice.logprobs is None
            assert streamed == []
        else:
            assert choice.logprobs.content == streamed
            assert [entry.logprob for entry in streamed] == [p.logprob for p in one.logprobs]
            assert [bytes(entry.bytes) for entry in streamed] == [p.bytes for p in one.logprobs]
            assert [[top.logprob for top in entry.top_logprobs] for entry in streamed] == [
                [*p.top.values()] for p in one.logprobs
            ]


# --- Texts that are only read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
def test_embeddings_as_numbers_and_in_base64(client, story, text):
    listed = text if isinstance(text, list) and not isinstance(text[0], int) else [text]
    expected = story.embed(listed)
    numbers = client.embeddings.create(model=STORY, input=text, encoding_format="float")
    coded = client.embeddings.create(model=STORY, input=text, encoding_format="base64")
    assert [one.index for one in numbers.data] == list(range(len(listed)))
    assert np.array_equal(np.float32([one.embedding for one in numbers.data]), expected)
    decoded = [np.frombuffer(base64.b64decode(one.embedding), "<f4") for one in coded.data]
    assert np.array_equal(decoded, expected)
    assert numbers.usage.prompt_tokens == sum(len(story.encode(one)) for one in listed)
    default = client.embeddings.create(model=STORY, input=text)  # the client asks for base64 and decodes it
    assert np.array_equal(np.float32([one.embedding for one in default.data]), expected)


def test_embeddings_by_the_last_token(server, story):
    answer = server.post("/v1/embeddings", {"input": "The sea", "pooling": "last"}).json()
    assert np.array_equal(np.float32(answer["data"][0]["embedding"]), story.embed(["The sea"], "last")[0])


def test_scores_labels_and_tokens(server, models):
    texts, tiny = ["The sea was dark.", "It"], models["tiny"]
    scores = server.post("/score", {"model": "tiny", "input": texts}).json()["data"]
    for found, one in zip(scores, tiny.score_batch(texts), strict=True):
        assert (found["total"], found["token_ids"], found["token_logprobs"]) == (one.total, one.tokens, one.logprobs)
        assert found["tokens"] == one.texts
    labels = server.post("/classify", {"model": "labels", "input": texts}).json()["data"]
    for found, one in zip(labels, models["labels"].classify(texts), strict=True):
        assert found["label"] == one.label
        assert found["probabilities"] == {name: float(p) for name, p in one.probabilities.items()}
    tokens = server.post("/tokenize", {"prompt": texts[0]}).json()
    assert tokens["tokens"] == models[STORY].encode(texts[0])
    assert tokens["count"] == len(tokens["tokens"])
    assert "".join(tokens["texts"]) == "<|endoftext|>" + texts[0], "as the model's file says"
    assert server.post("/detokenize", {"tokens": tokens["tokens"]}).json()["prompt"] == "".join(tokens["texts"])


# --- Errors -----------------------------------------------------------------------------------------------------------

WRONG = [
    ({"temperature": -1}, "temperature", "temperature is -1.0; it must be"),
    ({"top_p": 2}, "top_p", "top_p is 2.0; it must be"),
    ({"top_k": -1}, "top_k", "top_k is -1; it must be"),
    ({"min_p": 7}, "min_p", "min_p is 7.0"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be"),
    (
        {"max_tokens": 5, "min_tokens": 9},
        "min_tokens",
        "min_tokens is 9; it must be a whole number up to max_tokens, 5",
    ),
    ({"seed": -1}, "seed", "seed is -1; it must be"),
    ({"seed": 10**40}, "seed", "seed is 1000"),
    ({"frequency_penalty": float("1e300")}, "frequency_penalty", "frequency_penalty is 1e+300"),
    ({"logprobs": 21}, "logprobs", "logprobs is 21; at most 20"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "logit_bias: its keys must be token ids"),
    (
        {"logit_bias": {"99999": 1}},
        "logit_bias",
        "logit_bias has token 99999; it must be a whole number from 0 to 50256",
    ),
    ({"logit_bias": {"262": 1e30}}, "logit_bias", "logit_bias of token 262 is 1e+30; it must be"),
    ({"stop": ""}, "stop", "stop has ''; it must be"),
    ({"stop": ["a"] * 17}, "stop", "stop has 17 texts"),
    ({"stop": "a" * 257}, "stop", "of up to 257 characters"),
    ({"stop": [60000]}, "stop", "token in stop is 60000; it must be a whole number from 0"),
    ({"bad_words": [""]}, "bad_words", "bad_words has an empty one"),
    ({"suffix": "the end"}, "suffix", "suffix is not offered"),
    ({"best_of": 1, "n": 2}, "best_of", "best_of is 1; it must be at least n, 2"),
    ({"best_of": 3, "stream": True}, "best_of", "best_of cannot be streamed"),
    ({"n": 129}, "n", "1 prompts x 129 texts; from 1 to 128 in all"),
    ({"guided_regex": "("}, "guided_regex", "regex"),
    ({"guided_regex": "a" * 20_001}, "guided_regex", "20001 characters; at most 20000"),
    ({"guided_json": {"type": "nonsense"}}, "guided_json", "json_schema"),
    ({"guided_choice": []}, "guided_choice", "choice"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "choose one"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "response_format.json_schema has no schema"),
    ({"prompt": [99999]}, "prompt", "the prompt has token id 99999; ids of this vocabulary are 0 to 50256"),
    ({"prompt": []}, "prompt", "0 prompts"),
    ({"prompt": "a" * 30_000}, "prompt", "this model's context is"),
    ({"max_tokens": 5000}, "prompt", "5000 new ones need"),
]


@pytest.mark.parametrize(("body", "param", "message"), WRONG, ids=[str([*body]) for body, *_ in WRONG])
def test_what_is_wrong_is_said(client, body, param, message):
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **{"prompt": "a", "max_tokens": 5, **body})
    error = caught.value
    assert message in error.body["message"]
    assert "\n" not in error.body["message"]
    assert len(error.body["message"]) < 600
    assert (error.type, error.param) == ("invalid_request_error", param)


def test_too_long_a_prompt_has_openai_s_code(client):
    with pytest.raises(openai.BadRequestError, match="shorten one of them") as caught:
        create(client, prompt="a " * 3000, max_tokens=5)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"overflow": "maybe"}, "overflow"),
        ({"stream_options": {"x": 1}}, "stream_options"),
    ],
)
def test_bodies_of_the_wrong_type(client, body, param):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        create(client, **{"prompt": "a", **body})
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert caught.value.body["message"].startswith(param)


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError, match="choose 'story-34m', 'tiny', 'labels'") as caught:
        create(client, model="gpt-5", prompt="a")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    for ask in (
        lambda: create(client, "chat", model="gpt-5", messages=MESSAGES),
        lambda: client.embeddings.create(model="gpt-5", input="a"),
        lambda: client.models.retrieve("gpt-5"),
    ):
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'"):
            ask()


def test_other_errors_of_the_other_routes(client, server):
    with pytest.raises(openai.BadRequestError, match="dimensions is 5; this model has") as caught:
        client.embeddings.create(model=STORY, input="a", dimensions=5)
    assert caught.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError, match="input has 0 texts"):
        client.embeddings.create(model=STORY, input=[])
    for path, body, message in (
        ("/classify", {"input": "a"}, "classif"),
        ("/score", {"input": "a" * 30_000}, "context"),
        ("/v1/embeddings", {"input": [[99999]]}, "99999"),
        ("/detokenize", {"tokens": [10**30]}, "10000"),
        ("/detokenize", {"tokens": [-1]}, "-1"),
    ):
        answer = server.post(path, body)
        assert (answer.status, message in answer.error["message"]) == (400, True), (path, answer.body)


def test_chat_without_a_template_says_what_to_do(files):
    with (
        serving("--model", f"tiny={files['tiny']}") as server,
        pytest.raises(openai.BadRequestError, match="--chat-template plain") as caught,
    ):
        create(server.client(), "chat", model="tiny", messages=MESSAGES)
    assert caught.value.code == "no_chat_template"


def test_keys(files):
    with serving("--model", f"tiny={files['tiny']}", env={"NBGPT_API_KEY": "right"}) as server:
        text = create(server.client("right"), model="tiny", prompt="a", max_tokens=2, seed=1).choices[0].text
        assert text == nbgpt.load(files["tiny"]).generate("a", max_tokens=2, seed=1).text
        with pytest.raises(openai.AuthenticationError) as caught:
            create(server.client("wrong"), model="tiny", prompt="a")
        assert (caught.value.type, caught.value.code) == ("authentication_error", "invalid_api_key")
        assert not any(re.search("right|wrong", line) for line in server.log)
