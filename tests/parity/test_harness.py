"""Against lm-evaluation-harness itself: its `hf` backend on tasks in local files, with the same weights in both."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from folders import TOKENIZER, text_config, write_folder
from models import random_params
from test_transformers import STORY, needs_story

import nbgpt
from nbgpt import paths
from nbgpt.analysis.choices import CHOICES
from nbgpt.analysis.lambada import LAMBADA
from nbgpt.cli.main import main

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
transformers = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")
lm_eval = pytest.importorskip("lm_eval", reason="the parity group needs it: pip install nbgpt[parity]")
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from nbgpt.analysis.harness import HarnessModel  # noqa: E402

TEXT = Path(paths.__file__).parent.parent / "docs" / "glossary.md"
LAST_WORD = """\
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[-1]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
"""
CHOICE = """\
output_type: multiple_choice
fewshot_split: train
doc_to_text: "{{context}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
"""
WRITTEN = """\
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "x"
generation_kwargs: {until: [".", "\\n\\n"], max_gen_toks: 20}
metric_list: [{metric: exact_match}]
"""
TASKS = {"last_word": LAST_WORD, "choice": CHOICE, "rolling": ROLLING, "written": WRITTEN}
SCORES = {"last_word": ["perplexity", "acc"], "choice": ["acc", "acc_norm"], "rolling": ["word_perplexity"]}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def examples():
    """Rows of each task, of sentences that the repository has."""
    words = re.sub(r"[|`#*\s]+", " ", TEXT.read_text(encoding="utf-8")).split()
    parts = [" ".join(words[start : start + 25]) for start in range(0, 500, 25)]
    rows = {"last_word": [{"text": part} for part in [*parts, " ".join(words[:700]), " one", "two  spaces  end"]]}
    rng = np.random.default_rng(0)
    rows["choice"] = []
    for number, part in enumerate(parts):
        others = [" ".join(parts[i].split()[-8:]) for i in rng.choice(len(parts), 3)]
        context, right = " ".join(part.split()[:-8]), " ".join(part.split()[-8:])
        choices = [*others[: number % 4], right, *others[number % 4 :]]
        rows["choice"].append({"context": context, "choices": choices, "label": number % 4})
    rows["choice"] += [{"context": "a", "choices": ["b", "c", "d", "e"], "label": 1}] * 3  # of one token
    rows["rolling"] = [{"text": " ".join(words[start : start + 600])} for start in (0, 600)] + [{"text": "short"}]
    rows["written"] = [{"text": part} for part in parts[:6]] + [{"text": " ".join(words[:800])}]
    return rows


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, examples):
    """A folder with the tasks and their rows."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        rows = folder / f"{name}.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in examples[name]), encoding="utf-8")
        source = f"task: local_{name}\ndataset_path: json\ndataset_kwargs: {{data_files: {rows}}}\ntest_split: train\n"
        (folder / f"{name}.yaml").write_text(source + text)
    return folder


def evaluated(model, tasks, names, num_fewshot=None):
    return lm_eval.simple_evaluate(
        model=model,
        tasks=[f"local_{name}" for name in names],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        num_fewshot=num_fewshot,
        bootstrap_iters=0,
    )


def answers(results, name):
    """What the model answered to each request of a task."""
    samples = sorted(results["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
    return [response[0] for sample in samples for response in sample["resps"]]


def check(theirs, ours, name):
    """Texts and greedy flags equal, log-likelihoods to the precision of hf's float32."""
    pairs = list(zip(answers(theirs, name), answers(ours, name), strict=True))
    assert pairs
    for expected, found in pairs:
        if isinstance(expected, str):
            assert found == re.sub(r"<\|pad\|>|<s>", "", expected)  # transformers is not told that they are special
        else:
            expected, found = (one if isinstance(one, (tuple, list)) else (one,) for one in (expected, found))
            assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5, abs=1e-3)
            assert [str(flag) for flag in found[1:]] == [str(flag) for flag in expected[1:]]
    for metric in SCORES.get(name, []):
        expected, found = (one["results"][f"local_{name}"][f"{metric},none"] for one in (theirs, ours))
        assert found == pytest.approx(expected, rel=1e-3 if "perplexity" in metric else 0)


@pytest.fixture(scope="module")
def random_models(tmp_path_factory):
    """A small random model as (theirs, ours)."""
    folder = tmp_path_factory.mktemp("random")
    config = text_config(n_ctx=200)
    write_folder(folder, config, random_params(config))
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder)
    peer = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    return HFLM(pretrained=peer, tokenizer=tokenizer, batch_size=4), nbgpt.load(folder, dtype="float32")


@pytest.mark.parametrize("name", TASKS)
def test_a_random_model(random_models, tasks, name):
    theirs, ours = random_models
    check(evaluated(theirs, tasks, [name]), evaluated(HarnessModel(ours), tasks, [name]), name)


def test_few_shots(random_models, tasks):
    theirs, ours = random_models
    check(*(evaluated(one, tasks, ["choice"], 2) for one in (theirs, HarnessModel(ours))), "choice")


def test_texts_that_begin(random_models, tasks):
    theirs, ours = random_models
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(theirs.tokenizer.name_or_path, add_bos_token=True)
    begins = HFLM(pretrained=theirs.model, tokenizer=tokenizer, batch_size=4, add_bos_token=True)
    results = [evaluated(one, tasks, ["last_word"]) for one in (begins, HarnessModel(ours, add_bos_token=True))]
    check(*results, "last_word")
    assert answers(results[0], "last_word") != answers(evaluated(theirs, tasks, ["last_word"]), "last_word")


def test_the_same_ids_divided_otherwise(random_models, monkeypatch):
    """With its cache of logits, `hf` 0.4.13 gives the shorter continuation another sum than alone."""
    theirs, ours = random_models
    ids = TOKENIZER.encode("It was a dark and stormy night.")
    requests = [(None, ids[:n], ids[n:]) for n in (len(ids) - 5, len(ids) - 1)]
    alone = [theirs._loglikelihood_tokens([request], disable_tqdm=True)[0][0] for request in requests]
    monkeypatch.setattr(theirs, "logits_cache", False)
    for model in (theirs, HarnessModel(ours)):
        together = model._loglikelihood_tokens(requests, disable_tqdm=True)
        assert [total for total, _ in together] == pytest.approx(alone, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("text", ["", "a <|endoftext|>b", "Naïve café 😀", "<|endoftext|>a"])
@pytest.mark.parametrize("flag", [None, True, False])
def test_encoding(random_models, text, flag):
    theirs, ours = random_models
    assert HarnessModel(ours).tok_encode(text, flag) == theirs.tok_encode(text, flag)


# story-34m


@pytest.fixture(scope="module")
def story_tokenizer(tmp_path_factory):
    """GPT-2's vocabulary, from the merges that come with nbgpt: bytes in the order of bytes_to_unicode, then merges."""
    merges = [tuple(line.split(" ")) for line in paths.shipped("vocab.bpe").read_text("utf-8").splitlines()[1:] if line]
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    letters = [chr(byte) for byte in own] + [chr(256 + number) for number in range(len(rest))]
    tokens = [*letters, *map("".join, merges), "<|endoftext|>"]
    return transformers.GPT2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


@pytest.fixture(scope="module")
def story(story_tokenizer, tasks):
    """Results of story-34m in float32, by task: (hf's, ours).

    A task at a time, for what two tasks on the same texts would do to `hf`: test_the_same_ids_divided_otherwise.
    """
    peer = transformers.GPT2LMHeadModel.from_pretrained(STORY, dtype=torch.float32).eval()
    theirs = HFLM(pretrained=peer, tokenizer=story_tokenizer, batch_size=8)
    ours = HarnessModel(nbgpt.load(STORY, dtype="float32"))
    return {name: [evaluated(one, tasks, [name]) for one in (theirs, ours)] for name in TASKS}


@needs_story
@pytest.mark.parametrize("name", TASKS)
def test_story(story, name):
    check(*story[name], name)


@needs_story
def test_int8_is_near(story, tasks):
    """Scores of the quantized model differ by no more than examples that stand on the edge."""
    found = evaluated(HarnessModel(nbgpt.load()), tasks, SCORES)
    for name, metrics in SCORES.items():
        for metric in metrics:
            expected, ours = (one["results"][f"local_{name}"][f"{metric},none"] for one in (story[name][0], found))
            assert ours == pytest.approx(expected, **({"rel": 0.05} if "perplexity" in metric else {"abs": 0.06}))


# The command, and what needs no hf


@pytest.fixture
def own_tasks_alone(monkeypatch):
    """The harness does not list its thousands of tasks, which takes seconds."""
    monkeypatch.setattr("lm_eval.tasks.TaskManager", functools.partial(TaskManager, include_defaults=False))


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main(["eval", "harness", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    config = text_config(n_ctx=200)
    return write_folder(tmp_path_factory.mktemp("command"), config, random_params(config))


def test_the_command(run, tasks, model_folder, examples, tmp_path):
    model = nbgpt.load(model_folder)
    output = tmp_path / "results.json"
    names = "local_last_word,local_choice"
    code, out, _ = run("--tasks", names, "--include-path", tasks, "--model", model_folder, "-o", output)
    assert code == 0
    assert "|local_choice" in out
    results = json.loads(output.read_text())
    assert (results["config"]["model"], results["config"]["dtype"]) == (model.name, "int8")
    for name, measure in (("last_word", LAMBADA), ("choice", CHOICES)):
        if name == "last_word":
            examples = {**examples, name: [row for row in examples[name] if row["text"] != " one"]}
        rows = measure.read("\n".join(map(json.dumps, examples[name])), "")
        ours = measure.run(model.engine, model.tokenizer, rows, bos=False).estimates["acc"]
        if name == "choice":
            assert results["results"]["local_choice"]["acc,none"] == ours.value
            assert results["results"]["local_choice"]["acc_stderr,none"] == pytest.approx(ours.standard_error)


@pytest.mark.usefixtures("own_tasks_alone")
def test_json_and_limit(run, tasks, model_folder):
    code, out, _ = run(
        *("--tasks", "local_choice", "--include-path", tasks, "--model", model_folder, "--limit", 3, "--json")
    )
    assert code == 0
    results = json.loads(out)
    assert results["n-samples"]["local_choice"]["effective"] == 3
    assert "samples" not in results


@pytest.mark.usefixtures("own_tasks_alone")
def test_bad_requests(run, tasks, model_folder):
    options = ("--include-path", tasks, "--model", model_folder)
    code, _, err = run("--tasks", "no_such_task", *options)
    assert code == 2
    assert err.endswith("nbgpt: lm-eval has no task 'no_such_task'; `lm-eval ls tasks` lists those that it has\n")
    code, _, err = run("--tasks", "local_choice", "--include-path", tasks / "nothing", "--model", model_folder)
    assert code == 1
    assert err.endswith(f"nbgpt: {tasks}/nothing: no folder with tasks\n")


@pytest.mark.usefixtures("own_tasks_alone")
@pytest.mark.parametrize(("option", "value"), [("--limit", 0), ("--num-fewshot", -1)])
def test_numbers_out_of_range(run, tasks, model_folder, option, value):
    code, _, err = run("--tasks", "local_choice", "--include-path", tasks, "--model", model_folder, option, value)
    assert code == 2
    assert f"{option[2:].replace('-', '_')} is {value}; it must be a whole number from " in err


@pytest.mark.usefixtures("own_tasks_alone")
def test_a_data_set_that_is_not_there(run, tasks, model_folder, tmp_path):
    text = (tasks / "choice.yaml").read_text().replace("choice.jsonl", "nothing.jsonl")
    (tmp_path / "choice.yaml").write_text(text)
    code, _, err = run("--tasks", "local_choice", "--include-path", tmp_path, "--model", model_folder)
    assert code == 1
    assert re.search(r"nbgpt: [^\n]*nothing.jsonl[^\n]*\n\Z", err)


@pytest.mark.usefixtures("own_tasks_alone")
def test_a_task_that_cannot_be_run(run, tasks, model_folder, tmp_path):
    (tmp_path / "bad.yaml").write_text((tasks / "choice.yaml").read_text().replace("{{label}}", "{{ label"))
    code, _, err = run("--tasks", "local_choice", "--include-path", tmp_path, "--model", model_folder)
    assert code == 2
    assert re.search(r"nbgpt: lm-eval cannot run local_choice: \w+: [^\n]+\n\Z", err)


def test_generation(random_models, tmp_path):
    model = HarnessModel(random_models[1])
    ids = TOKENIZER.encode("It was a dark")
    prompt = model._prompt("It was a dark", {"until": ["."], "max_gen_toks": 9})
    assert (prompt.text, prompt.options["max_tokens"], prompt.options["temperature"]) == (ids, 9, 0.0)
    assert model._prompt("a " * 500, {"max_gen_toks": 150}).text == TOKENIZER.encode("a " * 500)[-50:]
    assert model._prompt("", {"max_gen_toks": 9}).text == [TOKENIZER.bos_id]
    assert model._prompt("a", {"max_gen_toks": 9, "do_sample": True, "temperature": 0.5}).options["temperature"] == 0.5
    with pytest.raises(ValueError, match="max_gen_toks is 200; it must be less than 200, this model's context"):
        model._prompt("a", {"max_gen_toks": 200})
    with pytest.raises(ValueError, match=r"generation_kwargs has num_beams; nbgpt has top_k, .*"):
        model._prompt("a", {"max_gen_toks": 9, "num_beams": 4})


def test_the_plugin(model_folder, tasks):
    """By its name, once the module is imported; its entry point names the same class."""
    from lm_eval.api.registry import get_model

    from nbgpt.plugins.lm_eval import NbgptLM

    assert get_model("nbgpt") is NbgptLM
    project = (Path(paths.__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'entry-points."lm_eval.models"]\nnbgpt = "{NbgptLM.__module__}:{NbgptLM.__name__}"' in project
    results = lm_eval.simple_evaluate(
        model="nbgpt",
        model_args=f"model={model_folder},dtype=float32,threads=1",
        tasks=["local_choice"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=8,
        bootstrap_iters=0,
    )
    ours = evaluated(HarnessModel(nbgpt.load(model_folder, "float32")), tasks, ["choice"])
    assert results["results"] == ours["results"]
