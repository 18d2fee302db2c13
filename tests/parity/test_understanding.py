"""Scores, hidden states and classes against transformers' with the weights of story-34m."""

import numpy as np
import pytest
from test_transformers import PROMPTS, STORY, TOLERANCE, check, needs_story, torch, transformers

import nbgpt
from nbgpt.conversion.convert import convert
from nbgpt.formats import open_checkpoint

pytestmark = needs_story
TEXTS = PROMPTS.splitlines()
BOS = 50256


@pytest.fixture(scope="module")
def peer():
    return transformers.GPT2LMHeadModel.from_pretrained(STORY, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ours(STORY, tmp_path_factory.mktemp("story") / "story-34m.safetensors")


def ours(folder, output):
    convert(open_checkpoint(folder), "float32", output)
    return nbgpt.load(output, threads=2)


def log_softmax(peer, ids):
    """log p of each of some ids but the first, and how far from it float32 may be."""
    with torch.inference_mode():
        logits = peer(torch.tensor([ids])).logits[0, :-1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return logprobs.numpy(), 2 * TOLERANCE * float(logits.abs().max())


@pytest.mark.parametrize("bos", [False, True])
def test_scores(peer, model, bos):
    for score in model.score_batch([*TEXTS, PROMPTS], bos=bos):
        expected, tolerance = log_softmax(peer, [BOS] * bos + score.tokens)
        np.testing.assert_allclose(score.logprobs[not bos :], expected, rtol=0, atol=tolerance)
        assert score.total == pytest.approx(expected.sum(), abs=len(expected) * tolerance)


@pytest.mark.parametrize("normalize", [False, True])
def test_rank(peer, model, normalize):
    text, choices = TEXTS[0], [" the wind howled", " I", " so it was, and so it is", " banana", " 1984", " the"]
    before, values = model.tokenizer.encode(text), {}
    for choice in choices:
        logprobs, tolerance = log_softmax(peer, before + model.tokenizer.encode(choice))
        logprobs = logprobs[len(before) - 1 :].astype(np.float64)
        values[choice] = logprobs.mean() if normalize else logprobs.sum()
    ranked = model.rank(text, choices, normalize=normalize, bos=False)
    assert [choice for choice, _ in ranked] == sorted(choices, key=values.__getitem__, reverse=True)
    for choice, logprob in ranked:
        assert logprob == pytest.approx(values[choice], abs=10 * tolerance)


def test_hidden_states(peer, model):
    ids = model.tokenizer.encode(PROMPTS)
    with torch.inference_mode():
        expected = peer(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert len(expected) == model.config.n_layer + 1
    for layer in range(-len(expected), len(expected)):
        check(model.hidden_states(PROMPTS, layer, bos=False), expected[layer][0].numpy())


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embed(peer, model, pooling):
    """A batch of theirs has padding, which the pooling must leave out."""
    ids = [model.tokenizer.encode(text) for text in TEXTS]
    longest = max(map(len, ids))
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in ids])
    batch = torch.tensor([text + [BOS] * (longest - len(text)) for text in ids])
    with torch.inference_mode():
        states = peer(batch, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    if pooling == "mean":
        vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    else:
        vectors = states[torch.arange(len(ids)), mask.sum(1) - 1]
    check(model.embed(TEXTS, pooling, normalize=False, bos=False), vectors.numpy())
    unit = torch.nn.functional.normalize(vectors)
    check(model.embed(TEXTS, pooling, bos=False), unit.numpy())


@pytest.mark.parametrize("names", [None, ["grim", "neutral", "merry"], ["dull", "thrilling"]])
def test_classes(tmp_path, names):
    """Their batch is padded, and they look for the last token that is no padding."""
    torch.manual_seed(0)
    settings = {"num_labels": 5} if names is None else {"id2label": dict(enumerate(names))}
    peer = transformers.GPT2ForSequenceClassification.from_pretrained(
        STORY, dtype=torch.float32, pad_token_id=BOS, **settings
    ).eval()
    torch.nn.init.normal_(peer.score.weight, 0, 0.1)
    peer.save_pretrained(tmp_path)
    model = ours(tmp_path, tmp_path / "ours")
    results = model.classify(TEXTS, bos=False)
    ids = [model.tokenizer.encode(text) for text in TEXTS]
    longest = max(map(len, ids))
    with torch.inference_mode():
        logits = peer(torch.tensor([text + [BOS] * (longest - len(text)) for text in ids])).logits
    check(np.stack([result.logits for result in results]), logits.numpy())
    probabilities = np.array([list(result.probabilities.values()) for result in results])
    np.testing.assert_allclose(probabilities, logits.softmax(-1).numpy(), rtol=0, atol=1e-4)
    labels = [peer.config.id2label[int(best)] for best in logits.argmax(-1)]
    assert [result.label for result in results] == labels
    assert list(results[0].probabilities) == list(peer.config.id2label.values())
    assert len(set(labels)) > 1


@pytest.mark.parametrize(
    ("n_labels", "problem_type"),
    [(1, None), (3, None), (3, "single_label_classification"), (3, "multi_label_classification")],
)
def test_probabilities_are_those_of_their_pipeline(tmp_path, n_labels, problem_type):
    torch.manual_seed(0)
    peer = transformers.GPT2ForSequenceClassification.from_pretrained(
        STORY, dtype=torch.float32, num_labels=n_labels, problem_type=problem_type, pad_token_id=BOS
    ).eval()
    torch.nn.init.normal_(peer.score.weight, 0, 0.1)
    peer.save_pretrained(tmp_path)
    model = ours(tmp_path, tmp_path / "ours")
    [result] = model.classify(TEXTS[:1], bos=False)
    with torch.inference_mode():
        outputs = peer(torch.tensor([model.tokenizer.encode(TEXTS[0])]))
    tokenizer = transformers.GPT2Tokenizer()  # which only texts need
    pipeline = transformers.TextClassificationPipeline(model=peer, tokenizer=tokenizer)
    expected = {one["label"]: one["score"] for one in pipeline.postprocess(outputs, top_k=None)}
    assert result.probabilities == pytest.approx(expected, abs=1e-5)
