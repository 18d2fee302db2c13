"""LoRA adapters against PEFT: the logits of the adapted model, and the weights that merge_and_unload leaves.

Part of the parity group: install the extra `parity` to run it.
"""

import copy
import shutil

import numpy as np
import pytest
from folders import TOKENIZER, VOCABULARY
from models import open_model, read
from test_transformers import check, logits_of, peer_of, torch, transformers

from nbgpt.cli.main import main
from nbgpt.conversion.convert import convert
from nbgpt.conversion.lora import merge
from nbgpt.formats import open_checkpoint

peft = pytest.importorskip("peft", reason="the parity group needs PEFT: pip install nbgpt[parity]")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),  # of fan_in_fan_out, which it corrects, and of ties
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]
ALL = ["c_attn", "c_proj", "c_fc"]
ADAPTERS = {
    "one matrix": {"target_modules": ["c_attn"]},
    "all matrices": {"target_modules": ALL, "use_rslora": True},
    "patterns": {
        "target_modules": ALL,
        "rank_pattern": {"c_fc": 2},
        "alpha_pattern": {"mlp.c_proj": 3, "h.1.attn.c_attn": 5},
    },
    "biases": {"target_modules": ALL, "bias": "all"},
    "whole modules": {"target_modules": ["c_attn"], "modules_to_save": ["ln_f", "wpe"]},
    "a head of its own": {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]},
}
ADAPTED_EMBEDDINGS = {"lm_head": {"target_modules": ["lm_head"]}, "wte": {"target_modules": ["wte", "wpe"]}}


def adapt(peer, settings, seed=0):
    """A PEFT model around a copy of peer, every trained number of which matters."""
    model = peft.get_peft_model(copy.deepcopy(peer), peft.LoraConfig(r=4, lora_alpha=6, **settings)).eval()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def base(tmp_path):
    peer = peer_of()
    peer.save_pretrained(tmp_path / "base")
    return peer


def text_of(rng):
    return rng.integers(0, 301, 100)


def ours(tmp_path, *adapters):
    checkpoint = merge(open_checkpoint(tmp_path / "base"), adapters)
    convert(checkpoint, "float32", tmp_path / "ours.safetensors")
    return checkpoint, open_model(tmp_path / "ours.safetensors", n_threads=2)


@pytest.mark.parametrize("name", ADAPTERS)
def test_weights_and_logits(tmp_path, rng, base, name):
    model = adapt(base, ADAPTERS[name])
    model.save_pretrained(tmp_path / "adapter")
    checkpoint, engine = ours(tmp_path, (tmp_path / "adapter", 1.0))
    text = text_of(rng)
    unmerged = logits_of(model, text)
    check(read(engine, text), unmerged)
    merged = model.merge_and_unload().state_dict()
    for tensor_name, tensor in checkpoint.tensors.items():
        expected = merged.get(f"transformer.{tensor_name}", merged.get(tensor_name)).numpy()
        np.testing.assert_allclose(tensor.read(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert np.abs(logits_of(base, text) - unmerged).max() > 0.01 * np.abs(unmerged).max()  # the adapter matters


@pytest.mark.parametrize("name", ADAPTED_EMBEDDINGS)
def test_embeddings_that_are_tied_in_the_base_model(tmp_path, rng, base, name):
    """Against the adapted model: PEFT 0.21 merges an adapter of one of them into both, which changes the logits."""
    model = adapt(base, ADAPTED_EMBEDDINGS[name])
    model.save_pretrained(tmp_path / "adapter")
    text = text_of(rng)
    check(read(ours(tmp_path, (tmp_path / "adapter", 1.0))[1], text), logits_of(model, text))


def test_several_with_weights(tmp_path, rng, base):
    folders = [(tmp_path / "one", 0.5), (tmp_path / "two", -0.7)]
    for seed, (folder, _) in enumerate(folders):
        adapt(base, ADAPTERS["all matrices"], seed).save_pretrained(folder)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base), folders[0][0], adapter_name="one")
    model.load_adapter(folders[1][0], adapter_name="two")
    model.base_model.set_adapter(["one", "two"])
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            for folder, weight in folders:
                module.set_scale(folder.name, weight)
    text = text_of(rng)
    expected = logits_of(model.merge_and_unload(adapter_names=["one", "two"]).eval(), text)
    check(read(ours(tmp_path, *folders)[1], text), expected)


def test_a_classifier(tmp_path, rng):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=40, vocab_size=301, n_positions=150, num_labels=3, pad_token_id=0
    )
    peer = transformers.GPT2ForSequenceClassification(config).eval()
    model = adapt(peer, {"target_modules": ["c_attn"], "task_type": "SEQ_CLS"})
    model.save_pretrained(tmp_path / "adapter")
    peer.save_pretrained(tmp_path / "base")
    checkpoint, _ = ours(tmp_path, (tmp_path / "adapter", 1.0))
    expected = model.merge_and_unload().state_dict()
    assert checkpoint.config.n_labels == 3
    for name in ("score.weight", "h.0.attn.c_attn.weight"):
        theirs = expected.get(f"transformer.{name}", expected.get(name)).numpy()
        np.testing.assert_allclose(checkpoint.tensors[name].read(), theirs, rtol=1e-6, atol=1e-7)


def test_the_command(tmp_path, capsys):
    """`convert BASE --lora FOLDER:WEIGHT`, named after both, says what it merged."""
    base = peer_of(vocab_size=TOKENIZER.n_vocab)
    base.save_pretrained(tmp_path / "base")
    for file in VOCABULARY.values():
        shutil.copy(file, tmp_path / "base")
    adapt(base, ADAPTERS["one matrix"]).save_pretrained(tmp_path / "poems")
    output = tmp_path / "out"
    output.mkdir()
    main(
        [
            "convert",
            str(tmp_path / "base"),
            "--dtype",
            "float32",
            "--lora",
            f"{tmp_path / 'poems'}:0.5",
            "-o",
            str(output),
        ]
    )
    assert [path.name for path in output.iterdir()] == ["base-poems-float32.safetensors"]
    assert "nbgpt: merged 3 matrices of the LoRA adapter 'poems', weight 0.5\n" in capsys.readouterr().err
