import numpy as np
import pytest
from batch_rows import prompts

import nbgpt

pytest.importorskip("pyarrow", reason="answers come as a table of Arrow")
from nbgpt.ray import Generator


@pytest.fixture(scope="module")
def batch():
    rows = prompts(15)
    return {name: np.array([row[name] for row in rows], object) for name in ("n", "text")}


def test_answers_are_functions_of_their_rows(batch, model_file):
    generate = Generator(str(model_file), prompt="{n} {text}", max_tokens=5, batch_size=4)
    found = generate(batch).to_pylist()
    backwards = generate({name: values[::-1] for name, values in batch.items()}).to_pylist()
    assert backwards == found[::-1]
    with nbgpt.load(model_file) as model:
        for row in found:
            alone = model.generate(f"{row['n']} {row['text']}", max_tokens=5, seed=row["answer"]["seed"])
            assert row["answer"]["text"] == alone.text
            assert row["answer"]["error"] is None


def test_bad_rows_have_an_error_and_no_text(model_file):
    batch = {"text": np.array(["a", None, "word " * 300], object), "id": np.array([1, 2, 3])}
    found = Generator(str(model_file), id="id", max_tokens=5)(batch).to_pylist()
    assert [row["id"] for row in found] == [1, 2, 3]
    assert [row["answer"]["text"] is None for row in found] == [False, True, True]
    assert "this model's context is 200" in found[2]["answer"]["error"]


def test_columns_come_back_as_they_came(model_file):
    lists = np.empty(2, object)
    lists[:] = [np.arange(3), np.arange(1)]
    batch = {
        "text": np.array(["a", "the"], object),
        "list": lists,
        "day": np.array(["2024-02-29T12:00", "2024-03-01"], "datetime64[us]"),
        "ns": np.array(["2024-02-29T12:00", "2024-03-01"], "datetime64[ns]"),
        "float": np.array([0.1, np.nan], np.float32),
        "int": np.array([1, 2], np.int32),
        "matrix": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    }
    found = Generator(str(model_file), max_tokens=2)(batch)
    kinds = {field.name: str(field.type) for field in found.schema}
    assert (kinds["float"], kinds["int"], kinds["day"], kinds["ns"]) == (
        "float",
        "int32",
        "timestamp[us]",
        "timestamp[ns]",
    )
    assert found["list"].to_pylist() == [[0, 1, 2], [0]]
    assert found["matrix"].to_pylist() == batch["matrix"].tolist()
    assert found["day"].to_numpy().tolist() == batch["day"].tolist()
    assert [row["answer"]["error"] for row in found.to_pylist()] == [None, None]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("generate", {"max_tokens": 2}),
        ("score", {}),
        ("embed", {}),
        ("rank", {"choices_column": "choices"}),
        ("choices", {"choices_column": "choices"}),
    ],
)
def test_answers_have_one_type_whatever_their_rows(model_file, task, options):
    choices, others = np.empty(1, object), np.empty(1, object)
    choices[:], others[:] = [[" a", " the"]], [[" x", " y"]]
    answer = Generator(str(model_file), task=task, **options)
    good, other, bad = (
        answer({"text": np.array([text], object), "choices": lists})
        for text, lists in (("a", choices), ("the", others), (None, choices))
    )
    assert good.schema.field("answer").type == other.schema.field("answer").type == bad.schema.field("answer").type
    assert good["answer"][0]["error"].as_py() is None
    assert bad["answer"][0]["error"].as_py()


def test_other_tasks(batch, model_file):
    found = Generator(str(model_file), task="choices", answer="label", choice=[" a", " the"])(batch).to_pylist()
    assert {row["label"]["choice"] for row in found} <= {" a", " the"}
    with pytest.raises(ValueError, match="top_k is -1"):
        Generator(str(model_file), top_k=-1)
    with pytest.raises(TypeError, match="no option is called 'topk'"):
        Generator(str(model_file), topk=1)


def test_in_a_pipeline_of_ray_data(cluster, batch, model_file):
    import ray

    rows = [{name: values[i] for name, values in batch.items()} for i in range(15)]
    options = {"model": str(model_file), "prompt": "{n} {text}", "max_tokens": 5, "threads": 1}
    data = ray.data.from_items(rows).map_batches(
        Generator, fn_constructor_kwargs=options, batch_size=4, num_cpus=1, concurrency=1
    )
    found = sorted(data.take_all(), key=lambda row: (row["n"], row["text"]))
    expected = Generator(**options)({name: np.array([row[name] for row in rows], object) for name in ("n", "text")})
    assert found == sorted(expected.to_pylist(), key=lambda row: (row["n"], row["text"]))
