import contextlib
import json
import shutil
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.formats import Checkpoint, FormatError, open_checkpoint
from nbgpt.formats.crc32c import crc32c, unmask
from nbgpt.formats.leveldb import snappy_decompress, table_entries
from nbgpt.formats.names import expected_shapes
from nbgpt.formats.tensorflow import open_tensorflow

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tensorflow"  # written by TensorFlow 2.21: make_tensorflow.py
INDEX, SHARD = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
MAGIC = bytes.fromhex("57fb808b247547db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in FIXTURE.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def fixture_values(variable: str, shape: tuple[int, ...]) -> np.ndarray:
    """The rule by which make_tensorflow.py fills a variable."""
    seed = zlib.crc32(variable.encode())
    numbers = [((i * 2654435761 + seed) % 2**32 * 2246822519) % 2**32 for i in range(int(np.prod(shape)))]
    return (np.array(numbers, np.float64) / 2**32 - 0.5).astype(np.float32).reshape(shape)


def openai_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    if module in ("wte", "wpe"):
        return f"model/{module}"
    kind = "b" if kind == "bias" else "g" if "ln_" in module else "w"
    return f"model/{module.replace('h.', 'h', 1) if module.startswith('h.') else module}/{kind}".replace(".", "/")


# ---- a writer of bundles, so that damage can be given right checksums


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def block_of(pairs: list[tuple[bytes, bytes]]) -> bytes:
    entries = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
    return entries + bytes(4) + (1).to_bytes(4, "little")


def table_of(blocks: list[bytes], kinds: bytes = bytes(99)) -> bytes:
    """A table of finished data blocks; `kinds` says how each is compressed already."""
    table, handles = b"", []
    for number, (block, kind) in enumerate(zip(blocks, kinds, strict=False)):
        handles.append((b"\xff" + bytes([number]), varint(len(table)) + varint(len(block))))
        table += block + bytes([kind]) + masked_crc(block + bytes([kind]))
    index = block_of(handles)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(index))
    return table + index + b"\0" + masked_crc(index + b"\0") + footer.ljust(40, b"\0") + MAGIC


def entry_of(
    shape: tuple[int, ...], data: bytes, offset: int = 0, dtype: int = 1, shard: int = 0, size: int | None = None
) -> bytes:
    dims = b"".join(b"\x12" + varint(len(varint(dim)) + 1) + b"\x08" + varint(dim) for dim in shape)
    numbers = b"\x18" + varint(shard) + b"\x20" + varint(offset) + b"\x28" + varint(len(data) if size is None else size)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + numbers + b"\x35" + masked_crc(data)


def stored_entries() -> dict[bytes, bytes]:
    return dict(table_entries((FIXTURE / INDEX).read_bytes()))


def replace_entries(folder: Path, **changes: bytes) -> None:
    """Rewrite the index with other entries; in a keyword, __ stands for a slash."""
    entries = stored_entries() | {name.replace("__", "/").encode(): entry for name, entry in changes.items()}
    (folder / INDEX).write_bytes(table_of([block_of(sorted(entries.items()))]))


def read_all(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {name: tensor.read() for name, tensor in checkpoint.tensors.items()}


# ---- CRC-32C


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4, and the check value of the CRC catalogues
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex("01c00000" + "00" * 12 + "14000000000004000000001400000018280000000000000002" + "00" * 7),
            0xD9963A56,
        ),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_of_published_vectors(data: bytes, expected: int):
    assert crc32c(data) == expected


def test_crc32c_agrees_with_division_bit_by_bit():
    data = np.random.default_rng(0).integers(0, 256, 320_001, np.uint8).tobytes()
    lengths = {*range(20), 6776, 6777, 6778, 13070, 54215, 54216, 54217, 54225, 262143, 262144, 262145, 262153, 320_001}
    register = 0xFFFFFFFF
    for length in range(max(lengths) + 1):
        if length in lengths:
            assert crc32c(data[:length]) == register ^ 0xFFFFFFFF, length
        if length < len(data):
            register ^= data[length]
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)


def test_crc32c_of_an_array_is_that_of_its_bytes():
    array = np.arange(50_000, dtype=np.float32).reshape(100, 500)
    assert crc32c(array) == crc32c(array.tobytes())
    assert crc32c(memoryview(array)) == crc32c(array.tobytes())


@given(st.binary(max_size=20))
def test_unmask_undoes_the_mask(data: bytes):
    assert unmask(int.from_bytes(masked_crc(data), "little")) == crc32c(data)


# ---- Snappy


def test_snappy_of_a_real_encoder():
    # made by cramjam's snappy.compress_raw: literals, copies with offsets of one and two bytes, one overlapping
    packed = "850168497420776173207468652062657374206f662074696d65732c2069191a08776f72321b00046162fe0200360200"
    text = b"It was the best of times, it was the worst of times, " + b"ab" * 40
    assert snappy_decompress(bytes.fromhex(packed)) == text


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (varint(70) + b"\xf0\x45" + b"x" * 70, b"x" * 70),  # a literal with its length in one byte more
        (varint(300) + b"\xf4\x2b\x01" + b"y" * 300, b"y" * 300),  # in two
        (varint(10) + b"\x08abc" + b"\x0d\x03", b"abcabcabca"),  # 7 bytes from 3 back
        (varint(9) + b"\x08abc" + b"\x16\x03\x00", b"abcabcabc"),  # an offset of two bytes
        (varint(5) + b"\x08abc" + b"\x07\x02\x00\x00\x00", b"abcbc"),  # of four
    ],
)
def test_snappy_by_hand(packed: bytes, expected: bytes):
    assert snappy_decompress(packed) == expected


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff" * 11,
        b"\x03\x08ab",  # ends inside a literal
        b"\x04\x08abc",  # fewer bytes than claimed
        b"\x02\x08abc",  # more
        b"\x03\x08abc\x00d",  # more behind the last
        b"\x08\x08abc\x01",  # ends inside an offset
        b"\x08\x08abc\x05\x00",  # a copy from nowhere
        b"\x08\x08abc\x05\x04",  # from before the beginning
        varint(1 << 40) + b"\x08abc",  # claims a terabyte
        varint(2 << 20) + bytes(200_000),  # claims more than a block has
    ],
)
def test_broken_snappy(packed: bytes):
    with pytest.raises(FormatError):
        snappy_decompress(packed)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_as_snappy(packed: bytes, claim: int):
    with contextlib.suppress(FormatError):
        assert len(snappy_decompress(varint(claim) + packed)) == claim


# ---- checkpoints of the real TensorFlow


@pytest.mark.parametrize(("where", "n_shards"), [(FIXTURE, 1), (FIXTURE / "two_shards", 2)])
def test_every_tensor_of_a_real_checkpoint(where: Path, n_shards: int):
    checkpoint = open_tensorflow(where)
    config = checkpoint.config
    assert (config.n_vocab, config.n_ctx, config.n_embd, config.n_head, config.n_layer) == (61, 24, 16, 2, 2)
    assert [path.name for path in checkpoint.files] == [
        INDEX,
        *(f"model.ckpt.data-{i:05d}-of-{n_shards:05d}" for i in range(n_shards)),
    ]
    assert checkpoint.tokenizer_files == {}
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == dict(expected_shapes(config))
    for name, values in read_all(checkpoint).items():
        assert values.dtype == np.float32
        expected = fixture_values(openai_name(name), checkpoint.tensors[name].shape)
        np.testing.assert_array_equal(values, expected, err_msg=name)


def test_tokenizer_files_are_found(folder: Path):
    for name in ("encoder.json", "vocab.bpe", "tokenizer.json"):
        (folder / name).touch()
    assert open_tensorflow(folder).tokenizer_files == {
        "vocab": folder / "encoder.json",
        "merges": folder / "vocab.bpe",
        "tokenizer": folder / "tokenizer.json",
    }


def test_a_fine_tunes_checkpoint_may_have_another_name(folder: Path):
    (folder / INDEX).rename(folder / "model-1000.index")
    (folder / SHARD).rename(folder / "model-1000.data-00000-of-00001")
    assert open_tensorflow(folder).tensors["wte.weight"].read().shape == (61, 16)


def test_index_in_snappy_blocks(folder: Path):
    pairs = sorted(stored_entries().items())
    blocks = []
    for block in (block_of(pairs[:12]), block_of(pairs[12:])):
        pieces = [block[at : at + 60] for at in range(0, len(block), 60)]
        blocks.append(varint(len(block)) + b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces))
    (folder / INDEX).write_bytes(table_of(blocks, kinds=b"\1\1"))
    expected = read_all(open_tensorflow(FIXTURE))
    for name, values in read_all(open_tensorflow(folder)).items():
        np.testing.assert_array_equal(values, expected[name])


def test_float16(folder: Path):
    data = np.linspace(-1, 1, 16, dtype=np.float16)
    (folder / SHARD).write_bytes((FIXTURE / SHARD).read_bytes() + data.tobytes())
    offset = (FIXTURE / SHARD).stat().st_size
    replace_entries(folder, model__ln_f__g=entry_of((16,), data.tobytes(), offset, dtype=19))
    values = open_tensorflow(folder).tensors["ln_f.weight"].read()
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, data)


# ---- damage


def test_a_flipped_bit_of_a_tensor_is_seen_when_it_is_read(folder: Path):
    data = bytearray((folder / SHARD).read_bytes())
    data[-1] ^= 1  # wte is the last by name
    (folder / SHARD).write_bytes(data)
    checkpoint = open_tensorflow(folder)
    checkpoint.tensors["wpe.weight"].read()
    with pytest.raises(FormatError, match=r"data-00000-of-00001: checksum of model/wte is wrong"):
        checkpoint.tensors["wte.weight"].read()


def test_a_shard_that_shrinks_while_it_is_open(folder: Path):
    checkpoint = open_tensorflow(folder)
    with (folder / SHARD).open("r+b") as file:
        file.truncate(31_000)
    with pytest.raises(FormatError, match="model/wte ends early"):
        checkpoint.tensors["wte.weight"].read()


@pytest.mark.parametrize("name", [INDEX, SHARD, "hparams.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(FormatError, match=name.removesuffix(".index")):
        open_tensorflow(folder)


def test_a_cut_shard(folder: Path):
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"model/wte ends at byte 31880 of .*, which has 31879; download it again"):
        open_tensorflow(folder)


def rename(folder: Path, name: str) -> None:
    (folder / INDEX).rename(folder / f"{name}.index")
    (folder / SHARD).rename(folder / f"{name}.data-00000-of-00001")


@pytest.mark.parametrize("where", ["", "checkpoint/run1/", "C:\\\\runs\\\\"])
def test_of_several_checkpoints_the_newest_is_read(folder: Path, where: str):
    """As gpt-2-simple leaves them in checkpoint/run1."""
    rename(folder, "model-1000")
    for older in ("model-900", "model-1100"):
        (folder / f"{older}.index").write_bytes(b"not to be read")
    (folder / "checkpoint").write_text(
        f'model_checkpoint_path: "{where}model-1000"\nall_model_checkpoint_paths: "model-900"\n'
    )
    for path in (folder, folder / "model-1000.index"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.files[0] == folder / "model-1000.index"
        assert checkpoint.tensors["wte.weight"].read().shape == (61, 16)


def test_an_index_is_opened_by_its_path(folder: Path):
    shutil.copy(folder / INDEX, folder / "model-1000.index")
    assert open_checkpoint(folder / INDEX).files[0] == folder / INDEX


@pytest.mark.parametrize(
    "text", [None, "", 'model_checkpoint_path: "../model-1000"/', "model_checkpoint_path: model.ckpt"]
)
def test_two_checkpoints_in_a_folder(folder: Path, text: str | None):
    shutil.copy(folder / INDEX, folder / "model-900.index")
    if text is not None:
        (folder / "checkpoint").write_text(text)
    with pytest.raises(FormatError, match=r"found model-900\.index, model\.ckpt\.index: name one"):
        open_tensorflow(folder)


@pytest.mark.parametrize("name", [INDEX, "hparams.json"])
def test_a_small_file_that_is_large(folder: Path, name: str):
    (folder / name).write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(FormatError, match=f"{name}: 1048577 bytes"):
        open_tensorflow(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 1}, "more layers than the 1"),
        ({"n_layer": 3}, "model/h2/ln_1/g is missing"),
        ({"n_layer": 1 << 23}, "model/h2/ln_1/g is missing"),
        ({"n_vocab": 62}, r"model/wte is \[61, 16\]; hparams.json asks for \[62, 16\]"),
        ({"n_head": 3}, "n_embd 16 is not a multiple of n_head 3"),
        ({"n_embd": None}, "hparams.json: "),
        ({"n_embd": "16"}, "n_embd is '16'"),
        ({"n_ctx": -1}, "n_ctx is -1"),
    ],
)
def test_hparams_that_do_not_fit(folder: Path, change: dict, message: str):
    hparams = json.loads((folder / "hparams.json").read_text()) | change
    (folder / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(FormatError, match=message):
        open_tensorflow(folder)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{}", b'{"n_vocab": 61}', b"\xff{}", b"[" * 100_000, b'{"n_layer": 1e999}']
)
def test_hparams_that_are_none(folder: Path, text: bytes):
    (folder / "hparams.json").write_bytes(text)
    with pytest.raises(FormatError, match=r"hparams\.json"):
        open_tensorflow(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry_of((17,), bytes(68)), r"is \[17\]; hparams.json asks for \[16\]"),
        (entry_of((1,) * 200_000, bytes(64)), r"is \[1, 1, 1, 1, 1, 1, 1, 1\]; "),
        (entry_of((), bytes(64)), r"is \[\]"),
        (entry_of((16,), bytes(64), dtype=2), "type 2; save it as 1"),
        (entry_of((16,), bytes(64), size=63), "claims 63 bytes"),
        (entry_of((16,), bytes(64), size=0), "claims 0 bytes"),  # a variable in slices has no bytes of its own
        (entry_of((16,), bytes(64), offset=31_817), "ends at byte 31881"),
        (entry_of((16,), bytes(64), offset=(1 << 64) - 64), "ends at byte 18446744073709551616"),
        (entry_of((16,), bytes(64), shard=1), "data-00001-of-00001, which is missing"),
        (entry_of((16,), bytes(64)) + b"\x0a\x00", "field 1 is not a number"),
        (b"\x10\x00", "field 2 is not a message"),
        (b"\x12\x05ab", "ends inside a field"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 12, "no end"),
    ],
)
def test_entries_that_cannot_be(folder: Path, entry: bytes, message: str):
    replace_entries(folder, model__ln_f__g=entry)
    with pytest.raises(FormatError, match=message) as caught:
        open_tensorflow(folder)
    assert str(caught.value).startswith(str(folder / INDEX))
    assert len(str(caught.value)) < len(str(folder)) + 200


def test_big_endian_values(folder: Path):
    replace_entries(folder, **{"": b"\x08\x01\x10\x01"})
    with pytest.raises(FormatError, match="big-endian"):
        open_tensorflow(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "not a LevelDB table"),
        (MAGIC, "not a LevelDB table"),
        (bytes(40) + MAGIC, "checksum of the block at byte 0"),
        (b"\xff" * 40 + MAGIC, "no end"),
        (table_of([block_of([(b"b", b""), (b"a", b"")])]), "out of order"),
        (table_of([block_of([(b"a", b"")])] * 2), "out of order"),
        (table_of([b"\0\0\0\0"], kinds=b"\2"), "compression 2"),
        (table_of([b"\0\0"]), "claims 0 restarts"),
        (table_of([b"\xff" * 4]), "4294967295 restarts"),
        (table_of([b"\x01\x01\x00a" + bytes(4)]), "longer than it can be"),  # shares a key with no one
        (table_of([b"\x00\x01\x7fa" + bytes(4)]), "longer than it can be"),
        (table_of([block_of([(b"k" * 5000, b"")])]), "longer than it can be"),
    ],
)
def test_tables_that_cannot_be(table: bytes, message: str):
    with pytest.raises(FormatError, match=message):
        list(table_entries(table))


def test_overlapping_blocks_are_refused():
    block = block_of([(b"a", b"")])
    stored = block + b"\0" + masked_crc(block + b"\0")
    handle = varint(0) + varint(len(block))
    index = block_of([(b"a", handle), (b"b", handle)])
    footer = (varint(0) + varint(0) + varint(len(stored)) + varint(len(index))).ljust(40, b"\0") + MAGIC
    with pytest.raises(FormatError, match="begins inside the one before"):
        list(table_entries(stored + index + b"\0" + masked_crc(index + b"\0") + footer))


def test_an_index_cut_anywhere(folder: Path):
    whole = (FIXTURE / INDEX).read_bytes()
    for length in range(0, len(whole), 7):
        (folder / INDEX).write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_tensorflow(folder)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_byte_of_the_index_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.mktemp("mutated")
    shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
    index = bytearray((folder / INDEX).read_bytes())
    place = data.draw(st.integers(0, len(index) - 1))
    index[place] = data.draw(st.integers(0, 255))
    (folder / INDEX).write_bytes(index)
    try:
        found = read_all(open_tensorflow(folder))
    except FormatError:
        return
    for name, values in read_all(open_tensorflow(FIXTURE)).items():
        np.testing.assert_array_equal(found[name], values)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 1))
def test_damage_with_right_checksums_stays_within_the_files_size(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], kind: int
):
    folder = tmp_path_factory.mktemp("sealed")
    shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
    block = bytearray((folder / INDEX).read_bytes()[:899])  # the data block: all entries and one restart
    for place, octet in changes:
        block[place % len(block)] = octet
    (folder / INDEX).write_bytes(table_of([bytes(block)], kinds=bytes([kind])))
    tracemalloc.start()
    with contextlib.suppress(FormatError):
        read_all(open_tensorflow(folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # the files have 33 kB, Python's objects the rest
