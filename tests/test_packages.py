"""Every module of the package has its test file at the same place below tests/, or is listed here with the reason."""

import runpy
import subprocess
import sys
from pathlib import Path

import nbgpt

PACKAGE, TESTS = Path(nbgpt.__file__).parent, Path(__file__).parent

ELSEWHERE = {
    "__main__.py": "tests/cli/test_main.py runs `python -m nbgpt` as a process",
    "backend/cgroup.py": "tests/backend/test_topology.py",
    "backend/llvm_loader.py": "tests/backend/test_parking.py, test_kernel_cache.py",
    "decoding/speculative.py": "the drafters: tests/engine/test_speculation.py",
    "engine/kept_text.py": "tests/text/test_session.py",
    "engine/model_runner.py": "tests/engine/test_engine.py, test_bits.py",
    "engine/work.py": "tests/engine/test_joining.py",
    "engine/window.py": "tests/engine/test_scheduler.py",
    "formats/base.py": "two data classes and an error, which all readers' tests use",
    "formats/crc32c.py": "tests/formats/test_tensorflow.py",
    "formats/dispatch.py": "tests/formats/test_safetensors.py",
    "formats/huggingface.py": "tests/formats/test_safetensors.py",
    "formats/leveldb.py": "tests/formats/test_tensorflow.py",
    "formats/names.py": "tests/formats/test_safetensors.py",
    "formats/pickles.py": "tests/formats/test_pytorch.py",
    "formats/protobuf.py": "tests/formats/test_tensorflow.py, tests/parity/test_vocabularies.py",
    "formats/sentencepiece.py": "tests/parity/test_vocabularies.py",
    "formats/stored.py": "tests/formats/test_pytorch.py, test_safetensors.py",
    "formats/vocabulary.py": "tests/conversion/test_registry.py, tests/parity/test_vocabularies.py",
    "conversion/transfer.py": "tests/conversion/test_hub.py",
    "serve/bodies.py": "tests/serve/test_guard.py",
    "cli/serve.py": "tests/serve/test_guard.py, test_run.py",
    "plugins/lm_eval.py": "tests/parity/test_harness.py, as it needs lm-eval",
    "serve/answers.py": "tests/serve/test_openai.py, test_reproducible.py",
    "serve/application.py": "tests/serve/test_guard.py, tests/test_examples.py",
    "serve/chat.py": "tests/serve/test_openai.py",
    "serve/completions.py": "tests/serve/test_openai.py",
    "serve/errors.py": "tests/serve/test_openai.py, test_guard.py",
    "serve/generation.py": "tests/serve/test_openai.py",
    "serve/limits.py": "a data class: tests/serve/test_openai.py, test_guard.py",
    "serve/schemas.py": "tests/serve/test_openai.py, test_schema.py",
    "serve/served.py": "tests/serve/test_openai.py",
    "serve/status.py": "tests/serve/test_guard.py",
    "serve/texts.py": "tests/serve/test_openai.py",
    "serve/tokens.py": "tests/serve/test_openai.py",
    "serve/worker.py": "tests/serve/test_reproducible.py, test_soak.py",
    "tasks/training/results.py": "a data class: tests/tasks/training/test_train.py",
    "text/completion.py": "data classes: tests/text/test_stream.py",
    "tokenizer/added.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/base.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/byte_bpe.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/hugging_face.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/merges.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/stored.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "tokenizer/stream.py": "tests/test_tokenizer.py, tests/parity/test_vocabularies.py",
    "verification/digests.py": "tests/test_digests.py, verification/test_machine.py",
    "verification/exact.py": "tests/test_digests.py",
    "verification/texts.py": "tests/test_digests.py",
    "version.py": "a constant",
    "weights/fingerprint.py": "tests/text/test_session.py, tests/tasks/training/test_classifier.py",
    "weights/text.py": "tests/test_model.py",
}
"""Module -> where it is tested instead, or why it is not."""


def _modules() -> set[str]:
    return {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}


def _test_file(module: str) -> Path:
    path = TESTS / module
    return path.with_name(f"test_{path.name}")


def test_every_module_has_its_test_file():
    assert sorted(module for module in _modules() - {*ELSEWHERE} if not _test_file(module).exists()) == []


def test_no_exception_is_out_of_date():
    assert sorted({*ELSEWHERE} - _modules()) == [], "these modules are gone: take them off the list"
    assert [module for module in ELSEWHERE if _test_file(module).exists()] == [], "these have their test files now"


def test_the_list_of_modules_is_made_from_their_docstrings():
    """If not: `python docs/tree.py`."""
    page = TESTS.parent / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    assert runpy.run_path(str(page.with_name("tree.py")))["rewritten"](text) == text
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("  - `")} <= {
        Path(module).name for module in _modules()
    }


def test_every_package_says_what_lives_there():
    for path in PACKAGE.glob("*/__init__.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("May import: ") for line in lines), path
        assert any(line.startswith("Start with ") for line in lines), path


def test_windows_is_told_where_nbgpt_runs():
    program = "import sys; sys.platform = 'win32'; import nbgpt"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("ImportError: nbgpt does not run on Windows: install it in WSL or in a container\n")
