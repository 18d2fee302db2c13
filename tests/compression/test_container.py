"""The compressed file: what was written is read, and nothing that is damaged or forged."""

import struct
from dataclasses import replace

import pytest

from nbgpt.compression.container import Chunk, Container, _sealed
from nbgpt.formats import FormatError

WHOLE = Container(
    "naïve int8", b"12345678", 24, 12, 100, 50, [Chunk(b"ab", 1), Chunk(b"", 2), Chunk(b"xyz", 2**32 - 1)]
)


@pytest.mark.parametrize("container", [WHOLE, replace(WHOLE, n_bytes=0, n_tokens=0, chunks=[])])
def test_round_trip(container):
    assert Container.from_bytes(container.to_bytes()) == container


def test_a_long_name_is_cut():
    assert Container.from_bytes(replace(WHOLE, model="é" * 300).to_bytes()).model.startswith("é" * 127)


def test_chunks_of_the_text():
    assert [span.stop - span.start for span in WHOLE.spans] == [16, 17, 17]


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_anywhere(bit):
    data = WHOLE.to_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        with pytest.raises(FormatError, match="damaged" if place >= 8 else "no file that nbgpt has compressed"):
            Container.from_bytes(bytes(damaged))


def test_a_file_that_is_cut_off_or_goes_on():
    data = WHOLE.to_bytes()
    for cut in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        with pytest.raises(FormatError, match="cut off" if len(cut) >= 8 else "no file"):
            Container.from_bytes(cut)


def test_another_version():
    data = bytearray(WHOLE.to_bytes()[:-8])
    data[8] = 2
    with pytest.raises(FormatError, match="version 2; this nbgpt reads 1"):
        Container.from_bytes(_sealed(bytes(data)))


@pytest.mark.parametrize(
    ("place", "kind", "value"),
    [
        (21, "<I", 24),  # overlap as large as the window
        (25, "<Q", 49),  # fewer bytes than tokens
        (33, "<Q", 0),  # chunks without tokens
        (33, "<Q", 2),  # fewer tokens than chunks
        (41, "<I", 0),  # tokens without chunks
        (41, "<I", 2**32 - 1),  # a table beyond the end
        (45, "<B", 255),
        (45 + 1 + 11, "<I", 1),  # a chunk that is shorter than its bytes
        (45 + 1 + 11, "<I", 2**32 - 1),
    ],
)
def test_a_forged_header_with_its_checksum(place, kind, value):
    """Numbers are checked before anything of their size is allocated."""
    data = bytearray(WHOLE.to_bytes()[:-8])
    struct.pack_into(kind, data, place, value)
    with pytest.raises(FormatError, match="contradicts itself"):
        Container.from_bytes(_sealed(bytes(data)))
