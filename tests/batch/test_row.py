import hashlib

import pytest

from nbgpt.batch.row import ColumnError, id_of, key_of, row_of, seed_of


def test_equal_rows_have_equal_content_whatever_the_order_of_their_columns():
    one, other = row_of(0, "f", 1, {"a": 1, "b": "é"}), row_of(5, "g", 9, {"b": "é", "a": 1})
    assert one.content == other.content == '{"a": 1, "b": "é"}'.encode()
    assert one.content != row_of(0, "f", 1, {"a": "1", "b": "é"}).content


@pytest.mark.parametrize("value", ["\ud800", float("nan"), {1, 2}])
def test_what_json_cannot_hold_is_no_row(value):
    row = row_of(3, "f", 7, {"a": value})
    assert row.error
    assert row.place == "f, line 7"


def test_id():
    row = row_of(0, "f", 1, {"number": 7, "name": "x", "is": True, "none": None, "part": 1.5})
    assert [id_of(row, name) for name in ("number", "name")] == ["7", "x"]
    for name in ("is", "none", "part"):
        with pytest.raises(ValueError, match="must be a text or a whole number"):
            id_of(row, name)
    with pytest.raises(ColumnError, match="no column 'other': there are 'number', 'name'"):
        id_of(row, "other")


def test_seeds_are_functions_of_run_key_and_number_among_equals():
    row = row_of(0, "f", 1, {"id": 1})
    keys = key_of(row, "id"), key_of(row, None)
    seeds = {seed_of(run, key, repeat) for run in range(3) for key in keys for repeat in range(5)}
    assert len(seeds) == 30
    assert all(0 <= seed < 2**53 for seed in seeds)
    digest = hashlib.blake2b(b"2 4 id 1", digest_size=8).digest()
    assert seed_of(2, b"id 1", 4) == int.from_bytes(digest, "little") // 2**11
