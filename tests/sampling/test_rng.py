"""The counter-based generator against NumPy's own Philox, and the numbers that are made of it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.sampling.rng import philox, uniform

words = st.integers(0, 2**64 - 1)


def numpy_philox(key, counter):
    """NumPy counts one up before it makes the first four words."""
    whole = sum(word << 64 * i for i, word in enumerate(counter))
    state = np.array([(whole - 1) >> 64 * i & (1 << 64) - 1 for i in range(4)], np.uint64)
    return tuple(np.random.Philox(counter=state, key=np.array(key, np.uint64)).random_raw(4).tolist())


@settings(max_examples=50, deadline=None)
@given(key=st.tuples(words, words), counter=st.tuples(words, words, words, words))
def test_philox_is_numpys(key, counter):
    assert philox(key, counter) == numpy_philox(key, counter)


def test_philox_known_answers():
    """From the authors' library Random123, tests/kat_vectors."""
    zeros = "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"
    ones = "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"
    full = 2**64 - 1
    assert philox((0, 0), (0, 0, 0, 0)) == tuple(int(word, 16) for word in zeros.split())
    assert philox((full, full), (full, full, full, full)) == tuple(int(word, 16) for word in ones.split())


def test_uniform_numbers_fill_the_unit_interval_evenly():
    for numbers in (
        [uniform(1, 0, position) for position in range(8192)],
        [uniform(1, sample, 0) for sample in range(8192)],
        [uniform(seed, 0, 0) for seed in range(8192)],
    ):
        assert 0 <= min(numbers) <= max(numbers) < 1
        counts = np.histogram(numbers, bins=64, range=(0, 1))[0]
        chi_square = ((counts - 128) ** 2 / 128).sum()
        assert abs(chi_square - 63) < 4 * np.sqrt(2 * 63)
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 4 / np.sqrt(8192)


def test_each_seed_sample_and_position_has_its_own_number():
    places = [(seed, sample, position) for seed in (0, 1, 2**64 - 1) for sample in range(10) for position in range(100)]
    numbers = {place: uniform(*place) for place in places}
    assert len(set(numbers.values())) == len(places)
    assert numbers == {place: uniform(*place) for place in reversed(places)}
