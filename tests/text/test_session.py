"""Sessions: what stays in the cache from call to call, and in files, must not show in any text."""

import gc
import pickle
import threading
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from folders import TOKENIZER, text_config, write_random_model, write_text_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import random_params
from safetensors.numpy import load_file

import nbgpt
from nbgpt.formats.safetensors import create, read_header
from nbgpt.text.session import fingerprint

STORY = (
    "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when it was checked by "
    "a violent gust of wind which swept up the streets, for it is in London that our scene lies, and so on and on"
)
GREEDY = {"greedy": True, "max_tokens": 20}
SEEDED = {"seed": 3, "temperature": 2.0, "max_tokens": 20}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors")


@pytest.fixture
def model(path):
    return nbgpt.load(path, threads=1)


@pytest.fixture
def alone(path):
    """The same model, which remembers nothing."""
    return nbgpt.load(path, threads=2)


def n_in_common(a, b):
    equal = np.array(a[: len(b)]) == np.array(b[: len(a)])
    return len(equal) if equal.all() else int(equal.argmin())


def generate_counting(session, prompt, **options):
    """A completion, which must be what is not in common with the text before."""
    before = list(session._settled().ids)
    session._engine.scheduler.prefix_cache.clear()
    completion = session.generate(prompt, **options)
    ids = session._tokenizer.encode_prompt(prompt)
    n_read = len(ids) - n_in_common(before, ids[:-1])
    assert completion.timing.prompt_tokens == n_read
    return completion


# --- Texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [GREEDY, SEEDED])
def test_a_session_writes_what_a_model_writes(model, alone, options):
    session, n_prompt = model.session(), len(model.encode(STORY))
    assert n_prompt > 64  # more than a page
    for prompt in (STORY, STORY, STORY + " by", STORY[:50], "", "Another", STORY):
        completion = generate_counting(session, prompt, **options)
        assert completion.text == alone.generate(prompt, **options).text
        assert len(session) == len(model.encode(prompt)) + 20 - 1  # nobody has read the last one yet
    again = session.generate(STORY, **options)
    assert (again.timing.prompt_tokens, again.usage.prompt_tokens) == (1, n_prompt)


def test_a_text_goes_on(model, alone):
    """What was written stands in the next prompt, but cut into other tokens maybe."""
    session, text = model.session(), "Once"
    for _ in range(4):
        text += generate_counting(session, text, **SEEDED).text
    expected = "Once"
    for _ in range(4):
        expected += alone.generate(expected, **SEEDED).text
    assert text == expected


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 3), st.integers(1, 70)), min_size=2, max_size=6))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_texts(model, alone, cuts):
    """Texts that part at any place, before, at and after the borders of pages, and outgrow the context."""
    letters = [TOKENIZER.tokens[i].decode("latin1") for i in TOKENIZER.encode("abcd")]
    session = model.session()
    for n_common, branch, n_new in cuts:
        prompt = "x" * n_common + letters[branch] * 3
        options = {"greedy": True, "max_tokens": n_new, "overflow": "keep_first"}
        assert session.generate(prompt, **options).tokens == alone.generate(prompt, **options).tokens
    del session
    assert model.engine.kv_bytes_in_use == 0


@pytest.mark.parametrize("overflow", ["truncate_left", "keep_first"])
def test_a_text_that_outgrows_the_context(model, alone, overflow):
    session, options = model.session(), {**SEEDED, "max_tokens": 300, "overflow": overflow}
    for prompt in ("Once", STORY, STORY * 3, "Once"):
        assert session.generate(prompt, **options).text == alone.generate(prompt, **options).text
        assert 0 < len(session) < 200


def test_every_option_is_as_for_a_model(model, alone):
    session = model.session()
    options = {**SEEDED, "logprobs": 2, "echo": True, "repetition_penalty": 1.3, "stop": ["e"], "bos": True}
    for _ in range(2):
        ours, theirs = session.generate(STORY, **options), alone.generate(STORY, **options)
        assert (ours.text, ours.tokens, ours.finish_reason) == (theirs.text, theirs.tokens, theirs.finish_reason)
        assert ours.logprobs == theirs.logprobs
    assert session.generate(STORY, batch_size=3, **GREEDY).text == alone.generate(STORY, **GREEDY).text
    with pytest.raises(TypeError, match="no option is called 'top_q'"):
        session.generate(STORY, top_q=1)
    with pytest.raises(ValueError, match=r"top_p is 1\.5"):
        session.stream(STORY, top_p=1.5)


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_finishes(model, alone):
    session = model.session()
    stream = session.stream(STORY, **GREEDY)
    next(stream)
    n_prompt = len(model.encode(STORY))
    assert len(session) == 0  # not yet
    del stream
    assert len(session) >= n_prompt
    assert generate_counting(session, STORY, **GREEDY).timing.prompt_tokens == 1
    session.stream("Another", **GREEDY)  # that nobody asks for a piece changes nothing
    assert len(session) > n_prompt


def test_a_stream_that_is_cancelled(model):
    session = model.session()
    stream = session.stream(STORY, **GREEDY)
    next(stream)
    stream.cancel()
    assert list(stream) == []
    assert stream.completion.finish_reason == "cancelled"
    assert len(session) >= len(model.encode(STORY))


def test_streams_of_one_session_in_turns(model, alone):
    session = model.session()
    session.generate(STORY, **GREEDY)
    prompts = [STORY + " by", STORY + " up", STORY[:40]]
    streams = [session.stream(prompt, **SEEDED) for prompt in prompts]
    texts = ["", "", ""]
    for pieces in zip_longest(*streams, fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    assert texts == [alone.generate(prompt, **SEEDED).text for prompt in prompts]


def test_threads_share_a_session(model, alone):
    session, prompts = model.session(), [STORY + letter for letter in "abcd"]
    expected = {prompt: alone.generate(prompt, **SEEDED).text for prompt in prompts}
    texts = {}

    def work(prompt):
        texts[prompt] = [session.generate(prompt, **SEEDED).text for _ in range(3)]

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {prompt: [text] * 3 for prompt, text in expected.items()}
    session.close()
    assert model.engine.kv_bytes_in_use == 0


def test_an_error_leaves_what_was_shared(model, alone):
    session = model.session()
    session.generate(STORY, **GREEDY)

    def fail(ids, logits):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.generate(STORY + " by", logits_processors=[fail])
    assert len(session) == n_in_common(model.encode(STORY), model.encode(STORY + " by")) > 64
    assert session.generate(STORY, **GREEDY).text == alone.generate(STORY, **GREEDY).text
    session.close()
    assert model.engine.kv_bytes_in_use == 0


def test_memory_is_given_back(model):
    engine, page = model.engine, model.engine.cache.page_bytes
    session = model.session()
    session.generate("Once", **GREEDY)
    assert engine.kv_bytes_in_use == page
    session.generate("Once", **{**GREEDY, "max_tokens": 100})
    assert engine.kv_bytes_in_use == 2 * page
    session.generate("Another", **GREEDY)
    assert engine.kv_bytes_in_use == page
    session.reset()
    assert (engine.kv_bytes_in_use, len(session)) == (0, 0)
    session.generate("Once", **GREEDY)
    del session
    gc.collect()
    assert engine.kv_bytes_in_use == 0


def test_a_closed_session(model):
    with model.session() as session:
        stream = session.stream("Once", **GREEDY)
        next(stream)
    assert model.engine.kv_bytes_in_use > 0  # of the stream
    assert "".join(stream)
    assert model.engine.kv_bytes_in_use == 0
    for use in (session.generate, session.stream, session.reset, lambda: session.save("x")):
        with pytest.raises(RuntimeError, match="this session is closed: open another one"):
            use()
    session.close()


def test_a_session_is_not_pickled(model):
    with pytest.raises(TypeError, match="a session cannot be pickled: save it to a file"):
        pickle.dumps(model.session())


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(model, tmp_path):
    session = model.session()
    session.generate(STORY, **GREEDY)
    session.save(tmp_path / "a.session")
    return tmp_path / "a.session"


def test_a_file_goes_on_in_another_process(saved, alone):
    session = alone.load_session(saved)
    completion = generate_counting(session, STORY, **SEEDED)
    assert completion.timing.prompt_tokens == 1
    assert completion.text == alone.generate(STORY, **SEEDED).text
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("changes", [{}, {"n_embd": 40, "n_head": 2}, {"n_embd": 128, "n_head": 2, "n_layer": 1}])
def test_a_file_holds_its_text_and_no_other(tmp_path, changes):
    """Though others have filled the pages before. As the safetensors package reads it."""
    config = text_config(**changes)
    file = write_text_model(tmp_path / "m.safetensors", config, random_params(config))
    model, fresh = nbgpt.load(file, threads=1), nbgpt.load(file, threads=1)
    model.generate("z" * 180, greedy=True, max_tokens=20)
    for n, one in enumerate((model, fresh)):
        session = one.session()
        session.generate(STORY[:90], **GREEDY)
        session.save(tmp_path / f"{n}.session")
    tensors = load_file(tmp_path / "0.session")
    assert (tmp_path / "0.session").read_bytes() == (tmp_path / "1.session").read_bytes()
    assert tensors["ids"].tolist() == session._settled().ids
    n, head_dim = len(session) % 64, config.head_dim
    layers = tensors["pages"][-1].reshape(config.n_layer, -1)
    keys = layers[:, : config.n_embd * 64].reshape(config.n_layer, config.n_head, head_dim, 64)
    values = layers[:, config.n_embd * 64 :].reshape(config.n_layer, config.n_head, 64, -1)[..., :head_dim]
    assert 0 < n < 64
    assert np.abs(keys[..., :n]).min() > 0
    assert np.abs(values[:, :, :n]).min() > 0
    assert not keys[..., n:].any()
    assert not values[:, :, n:].any()


def test_an_empty_session(model, tmp_path):
    model.session().save(tmp_path / "empty")
    session = model.load_session(tmp_path / "empty")
    assert len(session) == 0
    assert session.generate("Once", **GREEDY).text == model.generate("Once", **GREEDY).text


def test_a_session_of_another_model(saved, tmp_path):
    """Refused for any difference of config, weights or their type; a copy elsewhere by another name is the same."""
    config = text_config()
    params = random_params(config)
    (tmp_path / "models").mkdir()
    others = {
        "int8": (config, params, "int8"),
        "seed": (config, random_params(config, seed=1), "float32"),
        "one-weight": (config, {**params, "h.1.ln_2.bias": params["h.1.ln_2.bias"] + 1e-3}, "float32"),
        "epsilon": (text_config(layer_norm_epsilon=1e-2), params, "float32"),
    }
    for name, one in others.items():
        other = nbgpt.load(write_text_model(tmp_path / "models" / f"{name}.safetensors", *one))
        message = rf"a\.session is a session of random float32, cache float32, and this model is {name} {one[2]}, "
        with pytest.raises(ValueError, match=message + "cache float32: load that model for it"):
            other.load_session(saved)
    same = nbgpt.load(write_text_model(tmp_path / "models" / "same.safetensors", config, params))
    assert len(same.load_session(saved)) > 0


def test_the_fingerprint_sees_both_ends_of_every_tensor(path, tmp_path):
    native = nbgpt.load(path, threads=1)
    data = bytearray(path.read_bytes())
    expected, seen = fingerprint(native.engine), set()
    for entry in native.weights.entries.values():
        for at in (entry.start, entry.stop - 1):
            changed = data.copy()
            changed[at] ^= 1
            block = np.frombuffer(changed, "u1")
            native.engine.runner.weights = replace(native.weights, block=block)
            seen.add(fingerprint(native.engine))
    assert len(seen) == 2 * len(native.weights.entries)
    assert expected not in seen


def test_damaged_files(saved, model, tmp_path):
    data, damaged = saved.read_bytes(), tmp_path / "damaged"
    starts = [entry.start for entry in read_header(saved)[0].values()]
    for n in (0, 7, 100, starts[0], starts[0] + 5, starts[1] + 5, len(data) - 1):
        damaged.write_bytes(data[:n])
        with pytest.raises(nbgpt.FormatError, match=str(damaged)):
            model.load_session(damaged)
    for at in (*starts, *(start + 3 for start in starts), len(data) - 1, len(data) // 2):
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        with pytest.raises(nbgpt.FormatError, match="damaged, its checksum is another: save it again"):
            model.load_session(damaged)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, starts[0], 200).tolist():  # of the header: refused, or the same as before
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            assert len(model.load_session(damaged)) == len(model.load_session(saved))
        except ValueError as error:
            message = str(error)
            assert str(damaged) in message, message


@pytest.mark.parametrize(
    ("ids", "pages", "message"),
    [
        ([0] * 64, 2, "are not those of a text"),
        ([0] * 65, 1, "are not those of a text"),
        ([0] * 201, 4, "are not those of a text"),
        ([0, TOKENIZER.n_vocab], 1, r"has ids that are not in 0\.\.\d+: save it again"),
        ([-1], 1, r"has ids that are not in 0\.\.\d+: save it again"),
    ],
)
def test_files_that_were_made_up(model, tmp_path, ids, pages, message):
    """Whole, with a checksum that is right, and of this model."""
    import hashlib

    ids, pages = np.array(ids, np.int32), np.zeros((pages, model.engine.cache.page_size), np.float32)
    digest = hashlib.sha256(ids.tobytes() + pages.tobytes()).hexdigest()
    metadata = {"format": "nbgpt session", "fingerprint": fingerprint(model.engine), "sha256": digest}
    shapes = {"ids": ("I32", ids.shape), "pages": ("F32", pages.shape)}
    with create(tmp_path / "made-up", shapes, metadata) as file:
        file.write(ids.tobytes() + pages.tobytes())
    with pytest.raises(nbgpt.FormatError, match=message):
        model.load_session(tmp_path / "made-up")


def test_a_file_of_another_kind(path, model, tmp_path):
    with pytest.raises(nbgpt.FormatError, match=r"is no session: expected a file that `Session\.save` has written"):
        model.load_session(path)
    with pytest.raises(OSError, match="nothing"):
        model.load_session(tmp_path / "nothing")
    with pytest.raises(OSError, match="folder/a"):
        model.session().save(tmp_path / "folder" / "a")


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_is_no_file_to_save_to(model, folder):
    with pytest.raises(IsADirectoryError, match=r"this is a folder; the name of a file is wanted: '[./]+'"):
        model.session().save(folder)


def test_a_save_that_fails_leaves_the_old_file(saved, model, monkeypatch):
    before = saved.read_bytes()
    session = model.session()
    session.generate("Once", **GREEDY)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.session'"):
        session.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# --- Requests that are still under way --------------------------------------------------------------------------------


@pytest.mark.parametrize("forget", ["reset", "close"])
@pytest.mark.parametrize("n_pieces", [0, 1])
def test_a_stream_of_a_session_that_has_forgotten_its_text(model, alone, forget, n_pieces):
    """A stream that had not begun took the length of what was kept for what was there."""
    session = model.session()
    session.generate(STORY, **GREEDY)
    stream = session.stream(STORY + " by", **SEEDED)
    text = "".join(next(stream) for _ in range(n_pieces))
    getattr(session, forget)()
    model.engine.scheduler.prefix_cache.clear()
    assert text + "".join(stream) == alone.generate(STORY + " by", **SEEDED).text
    assert model.engine.kv_bytes_in_use == 0


def test_a_loaded_session_gives_way(path, saved, alone):
    """Also one that was not gone on with yet."""
    page = alone.engine.cache.page_bytes
    model = nbgpt.load(path, threads=1, kv_memory=4 * page)
    session = model.load_session(saved)
    assert len(session) > 64
    prompt = "z" * 150
    assert model.generate(prompt, **SEEDED).text == alone.generate(prompt, **SEEDED).text
    assert len(session) == 0
    assert session.generate(STORY, **GREEDY).text == alone.generate(STORY, **GREEDY).text


def test_saving_while_others_go_on(model, alone, tmp_path):
    """Ids and pages in a file belong together, whoever writes meanwhile."""
    session, done = model.session(), threading.Event()
    prompts = [STORY[:n] for n in (60, 100, 140)]
    expected = {prompt: alone.generate(prompt, **SEEDED).text for prompt in prompts}

    def work():
        while not done.is_set():
            for prompt in prompts:
                session.generate(prompt, **SEEDED)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for n in range(20):
            session.save(tmp_path / f"{n}.session")
    finally:
        done.set()
        thread.join()
    for n in range(20):
        loaded = alone.load_session(tmp_path / f"{n}.session")
        for prompt in prompts:
            assert loaded.generate(prompt, **SEEDED).text == expected[prompt]
