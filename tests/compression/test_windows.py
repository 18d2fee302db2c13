"""How texts are cut."""

from hypothesis import given
from hypothesis import strategies as st

from nbgpt.compression.windows import chunk_spans, windows


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_every_row_predicts_once(n_rows, window, data):
    overlap = data.draw(st.integers(0, window - 1))
    cut = list(windows(n_rows, window, overlap))
    assert [row for _, first, stop in cut for row in range(first, stop)] == list(range(n_rows))
    for start, first, stop in cut:
        assert 0 <= start <= first < stop <= start + window
        assert first - start == (overlap if first else 0)
    assert all(stop - start == window for start, _, stop in cut[:-1])


@given(st.integers(1, 300), st.data())
def test_chunks_are_of_one_size(n_tokens, data):
    n_chunks = data.draw(st.integers(1, n_tokens))
    spans = chunk_spans(n_tokens, n_chunks)
    assert [token for span in spans for token in range(span.start, span.stop)] == list(range(n_tokens))
    sizes = [span.stop - span.start for span in spans]
    assert len(sizes) == n_chunks
    assert max(sizes) - min(sizes) <= 1


def test_nothing_has_no_chunk():
    assert chunk_spans(0, 0) == list(windows(0, 5, 2)) == []
