import random
from collections import Counter

import pytest

from nbgpt.batch import index
from nbgpt.batch.index import build, rows_of
from nbgpt.batch.table import Table
from nbgpt.formats import FormatError


def by_content(row):
    return None


def by_id(row):
    return "id"


@pytest.fixture
def table(write):
    return lambda rows, name="rows.jsonl": Table([write(rows, name)])


def test_shards_are_all_rows_in_order(table):
    rows = [{"a": n} for n in range(23)]
    read = table(rows)
    found = build(read, 5, by_content)
    shards = [found.shard(number) for number in range(len(found.positions))]
    assert [shard.n_rows for shard in shards] == [5, 5, 5, 5, 3]
    assert [row.columns for shard in shards for row in rows_of(read, shard)] == rows
    assert [row.number for row in rows_of(read, shards[2])] == [10, 11, 12, 13, 14]
    assert found.n_rows == 23
    assert found.first.columns == {"a": 0}


def test_shards_of_a_part_have_its_rows_alone(table):
    rows = [{"a": n % 3} for n in range(23)]
    read = table(rows)
    found = build(read, 5, by_content)
    for part in (range(8), range(8, 9), range(9, 23), range(0), range(5, 5)):
        shards = [found.shard(number, part) for number in found.shards(part)]
        assert [row.number for shard in shards for row in rows_of(read, shard)] == list(part)
        for shard in shards:
            span = range(shard.first_row, shard.first_row + shard.n_rows)
            assert [shard.repeats.get(number, 0) for number in span] == [number // 3 for number in span]


def test_rows_that_do_not_come_are_no_shard(table, tmp_path):
    read = table([{"a": n} for n in range(7)])
    found = build(read, 5, by_content)
    table([{"a": n} for n in range(6)])
    assert len(list(rows_of(read, found.shard(0)))) == 5
    with pytest.raises(FormatError, match=r"rows\.jsonl: the input has changed under the run: begin anew with"):
        list(rows_of(read, found.shard(1)))


def test_equal_rows_are_numbered_in_their_order(table):
    rng = random.Random(0)
    rows = [{"a": rng.randrange(20), "b": 1} if rng.random() < 0.9 else "no JSON" for _ in range(300)]
    found = build(table(rows), 7, by_content)
    numbers = {n: k for i in range(len(found.positions)) for n, k in found.shard(i).repeats.items()}
    seen = Counter()
    for number, row in enumerate(rows):
        if row == "no JSON":
            assert number not in numbers  # it has no equals
        else:
            assert numbers.get(number, 0) == seen[row["a"]]
            seen[row["a"]] += 1


def test_digest_is_that_of_the_rows(table):
    rows = [{"a": 1}, {"a": 2}]
    digests = [
        build(table(changed), 1, by_content).digest
        for changed in (rows, ["", *rows], rows[::-1], [*rows, {"a": 2}], [{"a": 1}, {"a": "2"}], [*rows, "x"])
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def test_the_second_row_of_an_id_is_refused_and_both_are_named(table, tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match=rf"^{path}, line 2 and {path}, line 6 have the same id, 'x'"):
        build(table([{"id": 1}, {"id": "x"}, "bad", {"a": 0}, {"id": True}, {"id": "x"}]), 2, by_id)
    with pytest.raises(ValueError, match=r"line 1 and .* line 2 have the same id, '1'"):
        build(table([{"id": 1}, {"id": "1"}]), 2, by_id)


def test_rows_without_an_id_are_nobodys_equals(table):
    found = build(table([{"id": 1}, {"a": 0}, {"a": 0}, {"id": None}, {"id": None}]), 2, by_id)
    assert len(found.repeated) == 0


def test_ids_whose_hashes_are_equal_are_told_apart(table, monkeypatch):
    monkeypatch.setattr(index, "_hash", lambda row, column: 7)
    assert build(table([{"id": 1}, {"id": 2}, {"id": 3}]), 2, by_id).n_rows == 3


def test_nothing_to_read(table):
    for rows, message in (([], "has no rows"), (["x", "y"], "none of its 2 rows can be read")):
        with pytest.raises(FormatError, match=message):
            build(table(rows), 2, by_content)
