"""Never a wrong hit, and as long a hit as a naive search over all prompts finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import config_of

from nbgpt.abi.layout import PAGE
from nbgpt.engine.kv_cache import KVCache, Sequence
from nbgpt.engine.prefix_cache import LEAST_SHARED, PrefixCache, n_in_common

CONFIG = config_of(n_layer=1, n_head=1, n_embd=16)


def prefix_cache(max_pages=1000):
    cache = KVCache(CONFIG, "float32", 8 << 20)
    return cache, PrefixCache(cache, max_pages)


def put(cache, prefixes, ids):
    """Keep a prompt whose positions hold their ids and all ids before them, as far as one number can tell."""
    sequence = Sequence()
    cache.extend(sequence, len(ids))
    for position in range(len(ids)):
        cache._page(sequence.pages[position // PAGE])[position % PAGE] = stamp(ids[: position + 1])
    sequence.length = len(ids)
    prefixes.put(ids, sequence)
    return sequence


def stamp(ids):
    return hash(tuple(ids)) % 1_000_003


def check(cache, sequence, ids):
    for position in range(sequence.length):
        assert cache._page(sequence.pages[position // PAGE])[position % PAGE] == stamp(ids[: position + 1])


def longest(prompts, ids):
    """What a search over all prompts finds: whole pages, or LEAST_SHARED ids of the last one."""
    kept = [prompt for prompt in prompts if len(prompt) >= LEAST_SHARED]
    n = max((n_in_common(prompt, ids) for prompt in kept), default=0)
    return n if n % PAGE >= LEAST_SHARED or ids in kept else n // PAGE * PAGE


blocks = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90)), min_size=1, max_size=4)
prompts_of_blocks = blocks.map(lambda parts: [token for token, n in parts for _ in range(n)])


@given(st.lists(prompts_of_blocks, min_size=1, max_size=8), st.lists(prompts_of_blocks, min_size=1, max_size=8))
@settings(deadline=None, max_examples=150)
def test_hits_are_right_and_the_longest(known, asked):
    cache, prefixes = prefix_cache()
    for ids in known:
        put(cache, prefixes, ids)
    for ids in [*asked, *known, *(ids[:-1] for ids in known)]:
        n = prefixes.n_known(ids)
        lent = prefixes.lend(ids)
        assert lent.length == n == longest(known, ids)
        check(cache, lent, ids)


@given(st.lists(prompts_of_blocks, min_size=5, max_size=20), st.integers(0, 6), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_hits_are_right_while_pages_are_dropped(prompts, max_pages, random):
    """And borrowers go on in what they were lent."""
    cache, prefixes = prefix_cache(max_pages)
    for ids in prompts:
        lent = prefixes.lend(ids)
        check(cache, lent, ids)
        n = lent.length
        cache.extend(lent, len(ids) + 5)
        for position in range(n, len(ids)):
            cache._page(lent.pages[position // PAGE])[position % PAGE] = stamp(ids[: position + 1])
        lent.length = len(ids)
        prefixes.put(ids, lent)
        assert len(prefixes.pages) <= max_pages
        if random.random() < 0.3:
            prefixes.drop_oldest()
    del lent
    assert cache.n_held_only_by(prefixes.pages) == cache.n_used
    prefixes.clear()
    assert (prefixes.pages, cache.n_used) == ([], 0)


def story(n, seed):
    return np.random.default_rng(seed).integers(0, 50, n).tolist()


def test_the_least_recently_used_page_goes_first_and_no_page_before_those_that_follow_it():
    cache, prefixes = prefix_cache()
    first, second, third = (story(3 * PAGE, seed) for seed in range(3))
    for ids in (first, second, third):
        put(cache, prefixes, ids)
    prefixes.lend(first)
    known = []
    for _ in range(9):
        assert prefixes.drop_oldest()
        known.append([prefixes.n_known(ids) // PAGE for ids in (first, second, third)])
    assert known == [[3, 2, 3], [3, 1, 3], [3, 0, 3], [3, 0, 2], [3, 0, 1], [3, 0, 0], [2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert not prefixes.drop_oldest()


def test_equal_beginnings_are_stored_once():
    cache, prefixes = prefix_cache()
    common = story(2 * PAGE, 0)
    for seed in range(5):
        put(cache, prefixes, [*common, *story(20, seed + 1)])
    assert len(prefixes.pages) == 2 + 5
    assert cache.n_used == 7


def test_a_few_ids_are_not_worth_it():
    cache, prefixes = prefix_cache()
    put(cache, prefixes, story(LEAST_SHARED - 1, 0))
    assert prefixes.pages == []
    put(cache, prefixes, story(LEAST_SHARED, 0))
    assert prefixes.n_known([*story(LEAST_SHARED, 0), 1]) == LEAST_SHARED
    assert prefixes.n_known([*story(LEAST_SHARED, 0)[:-1], 51]) == 0
    assert prefixes.lend([]).length == 0


@pytest.mark.parametrize("max_pages", [0, 1, 2, 3])
def test_the_beginning_of_a_prompt_that_is_too_long_is_kept(max_pages):
    cache, prefixes = prefix_cache(max_pages)
    ids = story(3 * PAGE + 20, 0)
    put(cache, prefixes, ids)
    assert prefixes.n_known(ids) == max_pages * PAGE


def test_what_was_cut_short_is_found_and_dropped_later():
    """An interrupt between the two notes of a page: it is no hit for anything else, and goes like the others."""
    cache, prefixes = prefix_cache()
    ids = story(3 * PAGE, 0)
    put(cache, prefixes, ids)
    node = list(prefixes._nodes.values())[1]
    node.parent.children.remove(node)
    check(cache, prefixes.lend(ids), ids)
    put(cache, prefixes, [*ids[:PAGE], *story(PAGE, 1)])
    prefixes.clear()
    assert (prefixes.pages, cache.n_used) == ([], 0)
