"""Vocabularies of every kind, trained here: ids and texts as transformers and sentencepiece have them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import checkpoint_of, reciter_of
from models import config_of

import nbgpt
from nbgpt.conversion.convert import convert
from nbgpt.formats import Checkpoint, read_vocabulary
from nbgpt.formats.vocabulary import text_files
from nbgpt.tokenizer import Tokenizer, from_bytes

transformers = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")
tokenizers = pytest.importorskip("tokenizers", reason="an extra: pip install nbgpt[tokenizers]")
from trained_vocabularies import CORPUS, KINDS, SPECIAL, TEXTS, byte_level, bytes_of_the_corpus, word_piece  # noqa: E402

UNKNOWN_TO_NONE = TEXTS[0], TEXTS[4]
ADDED = ["covid19", "<|user|>", "<|end|>"]  # a word, and two special tokens


def ours(folder: Path, n_vocab: int) -> Tokenizer:
    """Read from a folder, and from the native file that it is stored in."""
    read = read_vocabulary(Checkpoint(config_of(n_vocab=n_vocab), {}, [], text_files(folder))).tokenizer
    stored = from_bytes(read.to_bytes())
    assert stored == read
    stored.set_ends(read.bos_id, read.eos_ids)  # which lie in the metadata of a native file
    return stored


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """The same vocabulary, transformers' and ours."""
    folder = tmp_path_factory.mktemp("vocabulary")
    names = ("unk", "bos", "eos", "pad") if request.param != "word_piece" else ()
    roles = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=False)}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=KINDS[request.param](), **roles)
    made.add_tokens([tokenizers.AddedToken(ADDED[0], single_word=True)])
    made.add_special_tokens({"additional_special_tokens": ADDED[1:]})
    made.save_pretrained(folder)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    return peer, ours(folder, len(peer))


def encode(peer, text):
    return peer.encode(text, add_special_tokens=False)


def decode(peer, ids, skip=True):
    return peer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:9]))
def test_ids_and_texts(pair, text):
    peer, own = pair
    ids = encode(peer, text)
    assert own.encode(text) == ids
    assert own.decode(ids) == decode(peer, ids)
    assert own.decode(ids, skip_special=False) == decode(peer, ids, skip=False)


def test_names_of_special_tokens(pair):
    peer, own = pair
    text = "a <|user|>Hello covid19<|end|> b"
    ids = encode(peer, text)
    assert {peer.convert_tokens_to_ids(name) for name in ADDED[1:]} <= {*ids}
    assert own.encode(text, special=True) == ids
    assert own.decode(ids) == decode(peer, ids)
    assert own.decode(ids, skip_special=False) == decode(peer, ids, skip=False)


def test_names_of_special_tokens_are_text_unless_asked_for(pair):
    _, own = pair
    unknown = own.special.get(b"<unk>", own.special.get(b"[UNK]"))
    for name in own.special:
        ids = own.encode(f"a {name.decode()} b{name.decode()}")
        assert not {*ids} & ({*own.special.values()} - {unknown})


def test_the_size_and_the_special_tokens(pair):
    peer, own = pair
    assert own.n_vocab == len(peer)
    assert {*own.special.values()} == {i for i, token in peer.added_tokens_decoder.items() if token.special}
    assert all(i in own for i in range(len(peer)))
    assert len(peer) not in own
    if peer.eos_token_id is not None:
        assert own.eos_ids == {peer.eos_token_id}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:9]))
def test_a_stream_shows_whole_characters(pair, text):
    peer, own = pair
    ids = encode(peer, text)
    stream = own.stream()
    pieces = [stream.push(i) for i in ids]
    whole = decode(peer, ids)
    assert "".join(pieces) + stream.finish() == whole
    assert "\ufffd" in whole or not any("\ufffd" in piece for piece in pieces)  # bytes that have no token are lost


@pytest.mark.parametrize("text", UNKNOWN_TO_NONE, ids=["latin", "east"])
def test_a_stream_after_a_prompt_is_the_rest_of_the_text(pair, text):
    peer, own = pair
    ids = encode(peer, text)
    for n in range(1, len(ids)):
        stream = own.stream(ids[:n])
        rest = "".join([stream.push(i) for i in ids[n:]]) + stream.finish()
        whole = decode(peer, ids)
        if "\ufffd" not in decode(peer, ids[:n]):  # the prompt ends with a whole character
            assert decode(peer, ids[:n]) + rest == whole


def reciting(folder: Path, peer, ids) -> nbgpt.Model:
    """A model with this vocabulary that goes on from the first of these ids with the others."""
    peer.save_pretrained(folder)
    checkpoint = checkpoint_of(*reciter_of(ids[1:], n_vocab=len(peer)))
    convert(replace(checkpoint, tokenizer_files=text_files(folder)), "float32", folder / "m.safetensors")
    return nbgpt.load(folder / "m.safetensors")


def test_a_models_stream(pair, tmp_path):
    """Whole characters, without special tokens, and the end of text only if it is ignored."""
    peer, _ = pair
    ids = encode(peer, "The kernels <|user|>covid19 吾輩は猫である Naïve 😀 façades")
    ends = [i for i in (peer.eos_token_id,) if i is not None]
    given = [*ids, *ends, *ids[1:]]
    with reciting(tmp_path, peer, given) as model:
        stream = model.stream(ids[:1], greedy=True, max_tokens=len(given) - 1 if ends else len(ids) - 1)
        pieces = list(stream)
        assert decode(peer, ids[:1]) + "".join(pieces) == decode(peer, ids)
        assert not any("\ufffd" in piece for piece in pieces)
        assert stream.completion.tokens == ids[1:]
        assert stream.completion.finish_reason == ("stop" if ends else "length")
        ignored = model.generate(ids[:1], greedy=True, max_tokens=len(given) - 1, ignore_eos=True)
        assert ignored.tokens == given[1:]
        assert ignored.text.count("</s>") == len(ends)
        assert "<|user|>" not in ignored.text


def test_a_search_goes_on_with_a_text_as_a_stream_does(pair, tmp_path):
    """The space that its text begins with is kept, and neither added nor hidden tokens stop it."""
    peer, _ = pair
    ids = encode(peer, "The kernels <|user|>covid19 are compiled by Numba")
    with reciting(tmp_path, peer, ids) as model:
        for at in range(1, len(ids)):
            whole, n = decode(peer, ids), len(ids) - at
            beam = model.beam_search(ids[:at], 2, max_tokens=n)[0]
            for found in (beam, model.contrastive_search(ids[:at], max_tokens=n, alpha=0)):
                assert found.tokens == ids[at:]
                assert decode(peer, ids[:at]) + found.text == whole


def test_bytes_of_tokens_make_the_text(pair):
    """But for the space that some kinds leave out where a text begins."""
    peer, own = pair
    for text in UNKNOWN_TO_NONE:
        ids = [i for i in encode(peer, text) if i not in own.hidden_ids]
        assert own.decode_bytes(ids).decode().lstrip(" ") == decode(peer, ids).lstrip(" ")


def test_any_ids_make_some_text(pair, rng):
    _, own = pair
    for _ in range(20):
        ids = rng.integers(0, own.n_vocab, 30)
        stream = own.stream()
        text = "".join([stream.push(i) for i in ids.tolist()]) + stream.finish()
        assert isinstance(text, str)
        assert own.decode(ids) == own.decode(ids.tolist())
    with pytest.raises(ValueError, match=f"token id {own.n_vocab} is not in the vocabulary"):
        own.stream().push(own.n_vocab)


# ---- GPT-2's two files


def test_two_files_without_a_token_for_each_byte(tmp_path):
    bytes_of_the_corpus().model.save(str(tmp_path))
    peer = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    own = ours(tmp_path, len(peer))
    for text in TEXTS:
        assert own.encode(text) == encode(peer, text)
        assert own.decode(own.encode(text)) == decode(peer, encode(peer, text))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_two_files(tmp_path, end, mark):
    tokenizer = byte_level()
    tokenizer.model.save(str(tmp_path))
    peer = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    merges = (tmp_path / "merges.txt").read_text("utf-8")
    (tmp_path / "merges.txt").write_bytes((mark + merges.replace("\n", end)).encode())
    (tmp_path / "vocab.json").write_bytes((mark + (tmp_path / "vocab.json").read_text("utf-8")).encode())
    own = ours(tmp_path, tokenizer.get_vocab_size())
    for text in TEXTS:
        assert own.encode(text) == encode(peer, text)
        assert own.decode(own.encode(text)) == text


def test_files_of_old_with_added_tokens(tmp_path):
    """As transformers 4 saves a GPT2Tokenizer: added_tokens.json, special_tokens_map.json, tokenizer_config.json."""
    byte_level().model.save(str(tmp_path))
    n = byte_level().get_vocab_size()
    files = {
        "added_tokens.json": {" covid19": n, "<|user|>": n + 1, "[x]": n + 2},
        "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<|user|>"]},
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<unk>"},
        "config.json": {"model_type": "gpt2"},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    own = ours(tmp_path, n + 3)
    for text in (*TEXTS, "no covid19 here[x][x]"):
        assert own.encode(text) == encode(peer, text)
        assert own.decode(own.encode(text)) == text
    assert own.encode("a<|user|>b", special=True) == encode(peer, "a<|user|>b")
    assert own.eos_id == peer.eos_token_id


def test_a_vocabulary_in_a_gguf_file(tmp_path):
    gguf = pytest.importorskip("gguf", reason="an extra: pip install nbgpt[gguf]")
    tokenizer = byte_level()
    tokenizer.add_tokens([tokenizers.AddedToken("covid19")])
    spec = json.loads(tokenizer.to_str())
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    types = [4 if name == "covid19" else 3 if name in SPECIAL else 1 for name in names]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "gpt2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*names, "[PAD601]", "[PAD602]"])
    writer.add_token_types([*types, 5, 5])
    writer.add_token_merges([" ".join(pair) for pair in spec["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    checkpoint = Checkpoint(config_of(n_vocab=603), {}, [], {"gguf": tmp_path / "a.gguf"})
    own = read_vocabulary(checkpoint).tokenizer
    for text in TEXTS:
        assert own.encode(text) == tokenizer.encode(text).ids
        assert own.decode(own.encode(text)) == text
    assert (own.bos_id, own.eos_ids) == (1, {2})
    np.testing.assert_array_equal(own.absent_ids(603), [601, 602])


def test_bert_files(tmp_path):
    """vocab.txt alone, as GPT2-Chinese has it; transformers makes the rest of a BertTokenizer."""
    vocabulary = word_piece().get_vocab()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    peer = transformers.BertTokenizer.from_pretrained(tmp_path)
    own = ours(tmp_path, len(peer))
    for text in TEXTS:
        ids = encode(peer, text)
        assert own.encode(text) == ids
        assert own.decode(ids) == decode(peer, ids)


# ---- sentencepiece's own models


@pytest.mark.parametrize("kind", ["unigram", "bpe", "bpe with bytes", "unigram with bytes", "bare"])
def test_sentencepiece_models(tmp_path, kind):
    sentencepiece = pytest.importorskip("sentencepiece", reason="the parity group: pip install sentencepiece")
    more = {"byte_fallback": "bytes" in kind}
    if kind == "bare":
        more |= {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(tmp_path / "spiece"),
        model_type=kind.split()[0] if kind != "bare" else "unigram",
        vocab_size=640,
        character_coverage=0.98,
        user_defined_symbols=["[x]"],
        minloglevel=2,
        **more,
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    peer = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    own = ours(tmp_path, peer.vocab_size())
    assert (own.bos_id, own.eos_ids, own.n_vocab) == (peer.bos_id(), {peer.eos_id()}, peer.vocab_size())
    for text in (*TEXTS, "a [x] b[x]", "</s> is text"):
        if "\u0000" in text:
            continue  # sentencepiece ends a text there
        ids = peer.encode(text)
        assert own.encode(text) == ids, text
        if peer.unk_id() not in ids:
            assert own.decode(ids) == peer.decode(ids)
            stream = own.stream()
            assert "".join([stream.push(i) for i in ids]) + stream.finish() == peer.decode(ids)
