"""The same GPT-2 for every engine, kept in a folder: random weights of the 124M shape, and each engine's file of them.

Each file is made by a process of its own, `python -m peer_engines.models`, under another name until it is whole.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[2]
CHECK_SHAPE = (8, 16)  # sequences, tokens


class NoModelError(RuntimeError):
    """An engine's own form of a model could not be made."""


def environment() -> dict[str, str]:
    """What the processes of engines get: nbgpt as it lies here, and no questions to the network."""
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "bench")))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def check_ids() -> list[list[int]]:
    """The texts on which engines must agree."""
    return np.random.default_rng(0).integers(0, 50257, CHECK_SHAPE).tolist()


def random_model(work: Path) -> Path:
    """A Hugging Face folder with random weights, and `logits.npy`: transformers' after each of `check_ids`."""
    return _made(work / "gpt2-124m", "random")


def with_vocabulary(work: Path, folder: Path) -> Path:
    """The model in a Hugging Face folder, with GPT-2's vocabulary beside it, which some folders lack."""
    return _made(work / folder.name, "vocabulary", str(folder.resolve()))


def converted(work: Path, source: Path, engine: str, dtype: str, version: str) -> Path:
    """The file, or folder, that an engine reads; made anew for another version of it."""
    target = work / f"{source.name}-{engine}-{dtype}-{version}"
    for old in work.glob(f"{source.name}-{engine}-{dtype}-*"):
        if old != target:
            _remove(old)
    return _made(target, "convert", engine, dtype, str(source))


def _made(target: Path, *arguments: str) -> Path:
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name("partial")
    _remove(partial)
    command = [sys.executable, "-m", "peer_engines.models", *arguments, str(partial)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise NoModelError(
            f"{target.name} cannot be made: {' '.join(arguments)}\n{done.stdout.decode(errors='replace')}"
        )
    partial.rename(target)
    return target


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_random_model(target: Path) -> None:
    """GPT-2's initial weights (a deviation of 0.02), but biases and gains that matter."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    for name, one in model.named_parameters():
        if one.ndim == 1:
            torch.nn.init.normal_(one, float(name.endswith("weight")), 0.1)
    model.save_pretrained(target)
    with torch.inference_mode():
        logits = model(torch.tensor(check_ids())).logits[:, -1]
    np.save(target / "logits.npy", logits.numpy())
    _write_vocabulary(target)


def _write_vocabulary(folder: Path) -> None:
    """vocab.json and merges.txt: 256 bytes, a token a merge, the end of text."""
    merges = (REPOSITORY / "weights" / "vocab.bpe").read_text(encoding="utf-8")
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    pairs = [line.replace(" ", "") for line in merges.splitlines()[1:] if line]
    tokens = [*alphabet, *pairs, "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


def main() -> None:
    what, *arguments, target = sys.argv[1:]
    if what == "random":
        _write_random_model(Path(target))
    elif what == "vocabulary":
        shutil.copytree(arguments[0], target)
        Path(target).chmod(0o755)  # the original may be read-only
        _write_vocabulary(Path(target))
    else:
        engine, dtype, source = arguments
        import_module(f"peer_engines.{engine}").convert(Path(source), dtype, Path(target))


if __name__ == "__main__":
    main()
