import numpy as np
import pytest
import reference
from folders import RECITED, reciter, text_config, write_folder
from models import config_of, open_model, random_params, write_native

from nbgpt.cli.main import main
from nbgpt.conversion import calibration
from nbgpt.conversion.calibration import Observer, cut, write_text
from nbgpt.weights import load


@pytest.fixture
def model(tmp_path):
    config = config_of(n_ctx=70, n_inner=100)
    return open_model(write_native(tmp_path / "model.safetensors", random_params(config), config, "float32"))


def inputs_by_reference(text, params, config):
    """Inputs of each layer's matrices: those of a projection are what an identity in its place lets through."""
    x = params["wte.weight"][text].astype(np.float64) + params["wpe.weight"][: len(text)]
    for layer in range(config.n_layer):
        block = reference.part(params, f"h.{layer}.")
        attn, mlp = reference.part(block, "attn."), reference.part(block, "mlp.")
        ln_1 = reference.layer_norm(x, block["ln_1.weight"], block["ln_1.bias"])
        scale = (config.n_embd // config.n_head) ** -0.5
        bare = {**attn, "c_proj.weight": np.eye(config.n_embd), "c_proj.bias": np.zeros(config.n_embd)}
        attended = reference.causal_self_attention(ln_1, bare, config.n_head, scale)
        middle = x + reference.causal_self_attention(ln_1, attn, config.n_head, scale)
        ln_2 = reference.layer_norm(middle, block["ln_2.weight"], block["ln_2.bias"])
        inner = reference.gelu_new(reference.linear(ln_2, mlp["c_fc.weight"], mlp["c_fc.bias"]))
        yield {
            "attn.c_attn.weight": ln_1,
            "attn.c_proj.weight": attended,
            "mlp.c_fc.weight": ln_2,
            "mlp.c_proj.weight": inner,
        }
        x = reference.block(x, block, config, layer)


def test_moments_are_those_of_the_inputs(model):
    config, params = model.config, random_params(model.config)
    texts = [np.random.default_rng(i).integers(0, config.n_vocab, n).tolist() for i, n in enumerate((70, 33))]
    observer, seen = Observer(model, texts), []
    for layers in zip(*(inputs_by_reference(text, params, config) for text in texts), strict=True):
        for name in layers[0]:
            expected = sum(inputs[name].T @ inputs[name] for inputs in layers)
            moments = observer(len(seen) // 4, name)
            np.testing.assert_allclose(moments, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
            seen.append(name)
    assert len(seen) == 4 * config.n_layer


def test_the_model_writes_the_same_texts_however_many_at_once(model, monkeypatch):
    texts = write_text(model, 5, 200)
    assert [len(text) for text in texts] == [70, 70, 70]
    assert all(text[0] == 5 and 0 <= min(text) <= max(text) < 61 for text in texts)
    assert len(set(map(tuple, texts))) == 3
    monkeypatch.setattr(calibration, "_KV_LIMIT", 1)
    assert write_text(model, 5, 200) == texts


def test_a_text_is_cut_to_the_context():
    assert cut(list(range(10)), 4, 9) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_calibrating_from_the_command_line(tmp_path, capsys):
    config = text_config(n_ctx=64)
    folder = write_folder(tmp_path / "folder", config, random_params(config))
    text = tmp_path / "text.txt"
    text.write_text(RECITED * 3, encoding="utf-8")
    plain, calibrated = tmp_path / "plain.safetensors", tmp_path / "calibrated.safetensors"
    assert main(["convert", str(folder), "--dtype", "int4", "-o", str(plain)]) == 0
    arguments = ["convert", "--dtype", "int4", "--calibration-text", str(text), str(folder), "-o", str(calibrated)]
    assert main(arguments) == 0
    assert load(calibrated).metadata["calibrated"] == "true"
    name = "h.0.mlp.c_proj.weight"
    values = [file.block[slice(*file.entries[name][2:])] for file in map(load, (plain, calibrated))]
    assert (values[0] != values[1]).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "calibrated.safetensors",
        "folder",
        "plain.safetensors",
        "text.txt",
    ]
    capsys.readouterr()


def test_what_cannot_be_calibrated(tmp_path, capsys):
    folder, empty = write_folder(tmp_path / "folder", *reciter()), tmp_path / "empty.txt"
    empty.write_text("")
    assert main(["convert", str(folder), "--calibrate", "-o", str(tmp_path / "x")]) == 2
    assert "calibrate is for int4, and dtype is int8" in capsys.readouterr().err
    arguments = ["convert", str(folder), "--dtype", "int4", "--calibration-text", str(empty), "-o", str(tmp_path / "x")]
    assert main(arguments) == 2
    assert "less than two tokens" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "folder"]
