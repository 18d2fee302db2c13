"""Every module of the package has its test file at the same place below tests/, or is listed here with the reason."""

import runpy
from pathlib import Path

import nbgpt

PACKAGE, TESTS = Path(nbgpt.__file__).parent, Path(__file__).parent

ELSEWHERE = {
    "__main__.py": "tests/cli/test_main.py runs `python -m nbgpt` as a process",
    "version.py": "a constant",
    "abi/job.py": "the record of a pass: every test that runs kernels writes it and reads it",
    "abi/layout.py": "constants, which tests/reference.py has in its own words; tests/weights/test_packing.py",
    "backend/cgroup.py": "tests/backend/test_thread_pool.py",
    "backend/compiler.py": "runs in a process of its own: tests/backend/test_kernel_cache.py, abi/test_targets.py",
    "decoding/speculative.py": "tests/engine/test_speculation.py",
    "engine/kv_cache.py": "tests/engine/test_engine.py, test_bits.py",
    "engine/model_runner.py": "tests/engine/test_engine.py, test_bits.py",
    "engine/prefix_cache.py": "tests/engine/test_scheduler.py",
    "engine/request.py": "tests/engine/test_scheduler.py",
    "formats/base.py": "two data classes and an error, which all readers' tests use",
    "formats/crc32c.py": "tests/formats/test_tensorflow.py",
    "formats/declared.py": "tests/parity/test_vocabularies.py",
    "formats/dispatch.py": "tests/formats/test_safetensors.py",
    "formats/huggingface.py": "tests/formats/test_safetensors.py",
    "formats/leveldb.py": "tests/formats/test_tensorflow.py",
    "formats/names.py": "tests/formats/test_safetensors.py",
    "formats/pickles.py": "tests/formats/test_pytorch.py",
    "formats/protobuf.py": "tests/formats/test_tensorflow.py",
    "formats/sentencepiece.py": "tests/parity/test_vocabularies.py",
    "formats/stored.py": "tests/formats/test_pytorch.py, test_safetensors.py",
    "formats/strict_json.py": "tests/formats/test_safetensors.py",
    "formats/tokenizer_kinds.py": "tests/parity/test_vocabularies.py",
    "formats/vocabulary.py": "tests/parity/test_vocabularies.py",
    "kernels/entries.py": "tests/backend/test_thread_pool.py",
    "kernels/fields.py": "accessors of the job: tests/engine/test_engine.py",
    "kernels/forward.py": "tests/engine/test_engine.py",
    "kernels/linear.py": "tests/engine/test_engine.py",
    "kernels/multi_head.py": "tests/kernels/test_attention.py",
    "kernels/next_token.py": "tests/engine/test_engine.py",
    "kernels/phases.py": "tests/backend/test_thread_pool.py",
    "kernels/residual.py": "tests/engine/test_engine.py",
    "kernels/roofline.py": "tests/analysis/test_benchmark.py, which runs them by `measure_roofline`",
    "kernels/rows.py": "tests/engine/test_engine.py",
    "kernels/tensors.py": "tests/engine/test_engine.py",
    "simd/atomics.py": "tests/backend/test_thread_pool.py",
    "simd/codegen.py": "every kernel's tests",
    "simd/dots.py": "tests/kernels/test_matmul.py",
    "simd/lanes.py": "tests/kernels/test_softmax.py, test_layernorm.py, test_gelu.py",
    "simd/pointers.py": "every kernel's tests",
    "simd/tiles.py": "tests/kernels/test_matmul.py",
    "text/completion.py": "data classes: tests/text/test_stream.py",
    "tokenizer/added.py": "tests/parity/test_vocabularies.py",
    "tokenizer/base.py": "tests/test_tokenizer.py",
    "tokenizer/byte_bpe.py": "tests/test_tokenizer.py",
    "tokenizer/hugging_face.py": "tests/parity/test_vocabularies.py",
    "tokenizer/merges.py": "tests/test_tokenizer.py",
    "tokenizer/stored.py": "tests/test_tokenizer.py",
    "tokenizer/stream.py": "tests/test_tokenizer.py",
    "weights/text.py": "tests/conversion/test_registry.py",
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
