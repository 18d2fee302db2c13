import pytest

from nbgpt.batch.job import Asker, Job
from nbgpt.batch.row import ColumnError, key_of, row_of, seed_of


def row(**columns):
    return row_of(0, "f", 1, columns)


def test_question():
    asked = Asker(Job(prompt="Say {text}", seed=5)).question(row(text="it", n=1), 2)
    assert asked.prompt == "Say it"
    assert asked.seed == seed_of(5, key_of(asked.row, None), 2)
    assert asked.size == 6


def test_the_id_alone_decides_the_seed():
    asker = Asker(Job(id="n"))
    seeds = [asker.question(row(text=text, n=n), 0).seed for text, n in (("a", 1), ("b", 1), ("a", 2))]
    assert seeds[0] == seeds[1] != seeds[2]
    assert asker.id_of(row(text="a", n=1)) == "1"
    assert asker.id_of(row(text="a")) is None
    assert asker.id_of(row_of(0, "f", 1, "no JSON")) is None


def test_rows_that_cannot_be_asked():
    with pytest.raises(ValueError, match="no JSON"):
        Asker(Job()).question(row_of(0, "f", 1, "no JSON"), 0)
    with pytest.raises(ColumnError, match=r"has a column 'answer', .* --answer names another"):
        Asker(Job()).question(row(text="a", answer="b"), 0)
    assert Asker(Job(answer="x")).question(row(text="a", answer="b"), 0).prompt == "a"
