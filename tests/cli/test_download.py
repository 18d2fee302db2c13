"""`download`, from a hub on this machine and without a network."""

import re

import pytest
from command_line import start
from folders import RECITED, reciter, write_folder


def test_download_and_generate_without_a_network(tmp_path, home, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="the extra nbgpt[download] is not installed")
    from hub_server import Hub

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    source = write_folder(tmp_path / "source", *reciter())
    user = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    with Hub({"me/recital": {path.name: path.read_bytes() for path in source.iterdir()}}) as hub:
        process = start("download", "me/recital", "--dtype", "float32", env=user | {"HF_ENDPOINT": hub.url})
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out == f"{home}/models/me--recital-float32.safetensors\n"
    process = start("generate", "-q", "-n", 100, "--model", "me/recital", env=user | {"HF_ENDPOINT": hub.url})
    assert process.communicate(timeout=60) == (RECITED + "\n", "")
    process = start("download", "me/other", env=user | {"HF_HUB_OFFLINE": "1"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"nbgpt: HF_HUB_OFFLINE is set and me/other is not in .*\n", err)


def test_a_name_that_cannot_be_downloaded(fails):
    pytest.importorskip("huggingface_hub", reason="the extra nbgpt[download] is not installed")
    assert fails("download", "gpt2-xxl") == (1, "unknown model 'gpt2-xxl'; did you mean gpt2-xl?")
