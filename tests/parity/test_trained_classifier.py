"""Classifiers trained here, exported and read by transformers."""

import numpy as np
import pytest
from folders import text_config, write_folder
from models import random_params

import nbgpt

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
transformers = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")

WORDS = {"calm": ("sea", "sand", "lake"), "grim": ("storm", "wolf", "ghost"), "merry": ("song", "feast", "joke")}
TEXTS = [
    f"{n} {word} {place}" for n in range(6) for words in WORDS.values() for word in words for place in ("up", "down")
]
LABELS = [label for _ in range(6) for label, words in WORDS.items() for _ in words for _ in range(2)]
MODELS = {"random float32": "float32", "random int8": "int8", "story-34m": None}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """A small model in two types, whose vocabulary is not GPT-2's, and the embedded one, whose texts begin with bos."""
    if MODELS[request.param] is None:
        return nbgpt.load()
    config = text_config(n_inner=100)
    folder = write_folder(tmp_path_factory.mktemp("m") / "folder", config, random_params(config))
    return nbgpt.load(folder, dtype=MODELS[request.param])


@pytest.mark.parametrize("kind", ["two labels", "three labels", "any number of labels"])
def test_logits(model, tmp_path, kind):
    labels = LABELS if kind != "two labels" else ["calm" if label == "calm" else "other" for label in LABELS]
    if kind == "any number of labels":
        labels = [
            [label] * (text[0] != "5") + ["even"] * (int(text[0]) % 2 == 0)
            for text, label in zip(TEXTS, LABELS, strict=True)
        ]
    found = nbgpt.train_classifier(model, TEXTS, labels, pooling="last", layer=-1)
    found.export(tmp_path / "hf")
    peer = transformers.GPT2ForSequenceClassification.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    assert list(peer.config.id2label.values()) == list(found.labels)
    texts = [*TEXTS[:7], "", "a long one " * 15]
    ids = [model.encode(text, bos=found.bos) for text in texts]
    theirs = np.stack([_logits(peer, one) for one in ids])
    exported = nbgpt.load(tmp_path / "hf", dtype="float32")  # int8 weights as they are, without rounded activations
    ours = np.stack([one.logits for one in exported.classify(texts)])
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())
    if model.dtype == "float32":
        loaded = nbgpt.load(found.save(tmp_path / "c.safetensors"))
        head = np.stack([one.logits for one in loaded.classify(texts)])
        assert np.abs(head - theirs).max() <= 1e-4 * max(1, np.abs(theirs).max())
    padded = peer.config.pad_token_id
    longest = max(map(len, ids))
    batch = torch.tensor([one + [padded] * (longest - len(one)) for one in ids if one[-1] != padded])
    with torch.inference_mode():
        together = peer(batch).logits.numpy()
    alone = np.stack([logits for one, logits in zip(ids, theirs, strict=True) if one[-1] != padded])
    np.testing.assert_allclose(together, alone, atol=1e-4 * max(1, np.abs(alone).max()))


def _logits(peer, ids):
    with torch.inference_mode():
        return peer(torch.tensor([ids])).logits[0].numpy()


def test_their_tokenizer_reads_the_vocabulary(model, tmp_path):
    found = nbgpt.train_classifier(model, TEXTS, LABELS, pooling="last", layer=-1)
    found.export(tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in (*TEXTS[:5], "Naïve café 😀 日本語"):
        ids = theirs(text).input_ids
        assert ids == model.encode(text, bos=found.bos)


def test_their_pipeline(model, tmp_path):
    found = nbgpt.train_classifier(model, TEXTS, LABELS, pooling="last", layer=-1)
    found.export(tmp_path / "hf")
    exported = nbgpt.load(tmp_path / "hf", dtype="float32")
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "hf"), top_k=None)
    for text, ours in zip(TEXTS[:4], exported.classify(TEXTS[:4]), strict=True):
        theirs = {one["label"]: one["score"] for one in pipeline([text])[0]}
        assert theirs == pytest.approx(ours.probabilities, abs=1e-4)
