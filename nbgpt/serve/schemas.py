"""Bodies of requests and answers, as pydantic models: OpenAI's fields, and the options of `Model.generate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, create_model

from ..text.options import OPTIONS

_TYPES: dict[type, Any] = {Integral: StrictInt, Real: float, bool: StrictBool, str: str, Iterable: list[str]}
_OWN = {"stop", "json_schema", "logprobs", "echo", "max_tokens"}  # declared below, as OpenAI has them
_NOT_OFFERED = {"logits_processors", "draft_model", "batch_size", "choice", "regex", "logit_bias"}


def _no_text(value: Any) -> Any:
    """Numbers are numbers: pydantic would also take "0.5" and True."""
    if isinstance(value, (str, bool)):
        raise ValueError("must be a number")
    return value


_Number = Annotated[float, BeforeValidator(_no_text)]
_TYPES[Real] = _Number


class Strict(BaseModel):
    """A body of which every field is known: a misspelled one is an error, not a wish that is forgotten."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _options() -> dict[str, Any]:
    """A field for each option of `Model.generate`; None stands for its default. `parse` checks the ranges."""
    fields: dict[str, Any] = {}
    for name, one in OPTIONS.items():
        if name not in _OWN | _NOT_OFFERED:
            kind = Literal[one.choices] if one.choices else _TYPES.get(one.kind, Any)
            default = one.shown_default()
            text = f"{one.help}; default: {default}" if default else one.help
            fields[name] = (kind | None, Field(None, description=text))
    return fields


class StreamOptions(Strict):
    """What a stream has beside its text."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool = False  # OpenAI's padding of chunks: there is none


class ResponseFormat(Strict):
    """The form of the text: free, JSON, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = Field(None, description='as OpenAI: {"name": ..., "schema": {...}}')


class GenerationFields(Strict):
    """What completions and chat have in common."""

    model: str | None = Field(None, description="name of the model; default: the server's first")
    max_tokens: StrictInt | None = Field(None, description=OPTIONS["max_tokens"].help)
    n: StrictInt | None = Field(None, ge=1, description="samples of each prompt, which differ; default: 1")
    stop: str | int | list[str | int] | None = Field(None, description=OPTIONS["stop"].help)
    stream: StrictBool | None = Field(None, description="send the text as it is made, by server-sent events")
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, _Number] | None = Field(None, description=OPTIONS["logit_bias"].help)
    response_format: ResponseFormat | None = None
    guided_json: dict[str, Any] | StrictBool | str | None = Field(None, description=OPTIONS["json_schema"].help)
    guided_regex: str | None = Field(None, description=OPTIONS["regex"].help)
    guided_choice: list[str] | None = Field(None, description=OPTIONS["choice"].help)
    user: str | None = Field(None, description="ignored")
    metadata: dict[str, str] | None = Field(None, description="ignored")


Generation = create_model("Generation", __base__=GenerationFields, __doc__=GenerationFields.__doc__, **_options())

Prompt = str | list[str] | list[StrictInt] | list[list[StrictInt]]


class CompletionRequest(Generation):  # type: ignore[misc, valid-type]
    """A prompt to continue, and how."""

    prompt: Prompt = Field("", description="a text, token ids, or a list of these")
    best_of: StrictInt | None = Field(None, ge=1, description="make so many samples, return the n likeliest by token")
    echo: StrictBool | None = Field(None, description=OPTIONS["echo"].help)
    logprobs: StrictInt | None = Field(None, ge=0, description=OPTIONS["logprobs"].help)
    suffix: str | None = Field(None, description="refused: GPT-2 cannot fill in text before an end")


class Message(Strict):
    """A message of a conversation."""

    role: str
    content: str
    name: str | None = None


class ChatRequest(Generation):  # type: ignore[misc, valid-type]
    """A conversation to continue, by the server's chat template."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: StrictInt | None = Field(None, description="another name of max_tokens")
    logprobs: StrictBool | None = Field(None, description="log-probabilities of the tokens")
    top_logprobs: StrictInt | None = Field(None, ge=0, description="and of so many likeliest in their places")


class EmbeddingRequest(Strict):
    """Texts to embed."""

    input: Prompt
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: StrictInt | None = Field(None, description="refused unless it is the model's n_embd")
    pooling: Literal["mean", "last"] | None = None
    user: str | None = None


class TokenizeRequest(Strict):
    """A text to encode."""

    prompt: str
    model: str | None = None
    special: StrictBool = False
    bos: StrictBool | None = None


class DetokenizeRequest(Strict):
    """Ids to decode."""

    tokens: list[StrictInt]
    model: str | None = None


class TextsRequest(Strict):
    """Texts to score or to classify."""

    input: Prompt
    model: str | None = None
    bos: StrictBool | None = None


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopToken(BaseModel):
    """A likely token in the place of one."""

    id: int
    text: str
    logprob: float


class Logprobs(BaseModel):
    """Log-probabilities of tokens, by the model's own logits."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]
    token_ids: list[int]
    top_tokens: list[list[TopToken]]


class Choice(BaseModel):
    """A text."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length", "time", "cancelled"] | None
    seed: int = Field(description="the request with this seed gives this text again")


class Completion(BaseModel):
    """The texts of a request."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage | None = None


class ChatChoice(BaseModel):
    """A message."""

    index: int
    message: Message
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None
    seed: int


class ChatCompletion(BaseModel):
    """The messages of a request."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage | None = None


def given(body: GenerationFields) -> Mapping[str, Any]:
    """The options of `Model.generate` that a body has."""
    return {name: value for name in OPTIONS if (value := getattr(body, name, None)) is not None}
