"""Pages that sequences share, against a naive model in which every sequence has its own positions."""

import gc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from models import config_of

from nbgpt.abi.layout import PAGE
from nbgpt.engine import kv_cache
from nbgpt.engine.kv_cache import KVCache, KVMemoryError, Sequence

CONFIG = config_of(n_layer=1, n_head=1, n_embd=16)
lengths = st.integers(0, 5 * PAGE)


@pytest.fixture(scope="module", autouse=True)
def memory_goes_back_early():
    """Every operation below meets pages whose memory the system has taken back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "KEPT_FREE", 1)
        yield


def cache_of(n_pages, dtype="float32"):
    page = KVCache(CONFIG, dtype, 1 << 20).page_bytes
    return KVCache(CONFIG, dtype, n_pages * page)


def values_of(cache, page):
    """The keys of a page [head_dim, PAGE], a view."""
    return cache.memory[page * cache.page_size :][: CONFIG.n_embd * PAGE].reshape(-1, PAGE)


def write(cache, sequence, start, values):
    for position, value in enumerate(values, start):
        values_of(cache, sequence.pages[position // PAGE])[:, position % PAGE] = value


def read(cache, sequence):
    return [float(values_of(cache, sequence.pages[i // PAGE])[0, i % PAGE]) for i in range(sequence.length)]


class AnyOperations(RuleBasedStateMachine):
    """Each sequence must read what it has written, whatever the others do; and every page is accounted for."""

    sequences = Bundle("sequences")

    @initialize(n_pages=st.integers(1, 30))
    def begin(self, n_pages):
        self.cache, self.texts, self.number = cache_of(n_pages), {}, 0

    @rule(target=sequences)
    def new(self):
        return self.keep(Sequence(), [])

    def keep(self, sequence, text):
        self.texts[sequence] = text
        return sequence

    @rule(sequence=sequences, n=st.integers(1, 100), reserved=st.integers(0, 20))
    def grow(self, sequence, n, reserved):
        text = self.texts[sequence]
        n_missing = self.cache.n_missing(sequence, len(text) + n + reserved)
        n_available = self.cache.n_available
        try:
            self.cache.extend(sequence, len(text) + n + reserved)
        except KVMemoryError:
            assert n_missing > n_available
            return
        assert n_missing <= n_available
        assert self.cache.n_available == n_available - n_missing
        new = [float(self.number + i) for i in range(n)]
        self.number += n
        write(self.cache, sequence, len(text), new)
        sequence.length += n
        text += new

    @rule(target=sequences, sequence=sequences, share=st.floats(0, 1))
    def fork(self, sequence, share):
        n, n_used = round(share * sequence.length), self.cache.n_used
        fork = self.cache.fork(sequence, n)
        assert self.cache.n_used == n_used
        return self.keep(fork, self.texts[sequence][:n])

    @rule(target=sequences, sequence=sequences, share=st.floats(0, 1))
    def join_pages(self, sequence, share):
        """As the prefix cache does: page by page, the last one in part."""
        n = round(share * sequence.length)
        sizes = [min(PAGE, n - start) for start in range(0, n, PAGE)]
        pages = [self.cache.page_of(sequence, number, size) for number, size in enumerate(sizes)]
        return self.keep(self.cache.join(pages, n), self.texts[sequence][:n])

    @rule(sequence=sequences, share=st.floats(0, 1))
    def truncate(self, sequence, share):
        n = round(share * sequence.length)
        self.cache.truncate(sequence, n)
        del self.texts[sequence][n:]
        assert len(sequence.pages) == -(-n // PAGE)

    @rule(sequence=sequences)
    def free(self, sequence):
        self.cache.free(sequence)
        self.texts[sequence].clear()

    @rule(sequence=consumes(sequences))
    def drop(self, sequence):
        self.texts.pop(sequence, None)

    @rule()
    def recount(self):
        before = self.cache.n_used
        self.cache.recount()
        assert self.cache.n_used == before

    @rule(sequence=sequences)
    def copy_and_restore(self, sequence):
        pages = self.cache.copy(sequence)
        try:
            again = self.cache.restore(pages, sequence.length)
        except KVMemoryError:
            return
        assert read(self.cache, again) == self.texts[sequence]

    @invariant()
    def all_read_what_they_wrote(self):
        if hasattr(self, "cache"):
            gc.collect(0)
            for sequence, text in self.texts.items():
                assert read(self.cache, sequence) == text
            held = {page for sequence in self.texts for page in sequence.pages}
            assert held.isdisjoint(self.cache._free)
            assert self.cache.n_used >= len(held)  # hypothesis may still hold others
            assert self.cache.n_used + self.cache.n_available == self.cache.n_pages


TestAnyOperations = AnyOperations.TestCase
TestAnyOperations.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


def filled(cache, n):
    sequence = Sequence()
    cache.extend(sequence, n)
    write(cache, sequence, 0, range(n))
    sequence.length = n
    return sequence


def test_the_first_to_go_on_shares_the_last_page_in_place():
    """The others read only what is before; who comes second has it copied."""
    cache = cache_of(9)
    first = filled(cache, 70)
    second, third = cache.fork(first, 70), cache.fork(first, 66)
    assert cache.n_missing(first, 80) == 0
    cache.extend(first, 80)
    assert (cache.n_used, first.pages) == (2, second.pages)
    assert cache.n_missing(second, 71) == 1
    cache.extend(second, 71)
    assert (cache.n_used, second.pages[0]) == (3, first.pages[0])
    assert second.pages[1] != first.pages[1] == third.pages[1]
    assert read(cache, second) == list(range(70))
    cache.free(first)
    assert cache.n_missing(third, 67) == 0  # alone in its page by now
    cache.extend(third, 67)
    assert cache.n_used == 3


def test_a_sequence_that_went_back_does_not_write_over_others():
    cache = cache_of(9)
    first = filled(cache, 70)
    fork = cache.fork(first, 70)
    cache.truncate(first, 68)
    cache.extend(first, 69)
    assert first.pages[1] != fork.pages[1]


def test_pages_that_a_call_left_when_it_was_cut_short_are_not_written_to():
    """`truncate` may end between the length and the pages; the page beyond may be shared."""
    cache = cache_of(9)
    first = filled(cache, 100)
    fork = cache.fork(first, 100)
    first.length = first.room = 64
    cache.recount()
    cache.extend(first, 70)
    assert first.pages[0] == fork.pages[0]
    assert first.pages[1] != fork.pages[1]


def test_a_full_cache_asks_for_pages_until_there_are_none_to_have():
    cache, idle = cache_of(3), []
    idle += [filled(cache, PAGE), filled(cache, PAGE)]
    cache.reclaim = lambda: bool(idle) and idle.pop() is not None
    held = filled(cache, 2 * PAGE)
    assert len(idle) == 1
    cache.extend(held, 3 * PAGE)
    with pytest.raises(
        KVMemoryError, match=rf"the KV cache is full: {cache.memory.nbytes} bytes in 3 pages of 64 tokens"
    ):
        cache.extend(Sequence(), 1)
    assert cache.n_used == 3


def test_dropped_sequences_give_their_pages_back_in_the_next_call():
    cache = cache_of(3)
    sequence = filled(cache, 2 * PAGE)
    cycle = [sequence]
    cycle.append(cycle)
    fork = cache.fork(sequence, PAGE)
    del sequence, cycle
    gc.collect()
    assert cache.n_used == 1
    assert cache.n_held_only_by([fork, fork]) == 0  # counted twice, held once
    assert cache.n_held_only_by([fork]) == 1


def test_a_copy_has_zeros_beyond_the_end():
    cache = cache_of(4)
    sequence = filled(cache, 2 * PAGE)
    part = cache.fork(sequence, PAGE + 3)
    pages = cache.copy(part)
    keys = pages[1][: CONFIG.n_embd * PAGE].reshape(-1, PAGE)
    assert not keys[:, 3:].any()
    assert (keys[:, :3] == [64, 65, 66]).all()
    assert read(cache, sequence) == list(range(2 * PAGE))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_limits(dtype):
    cache = cache_of(2, dtype)
    assert (cache.n_pages, cache.n_available, cache.page_bytes // PAGE) == (2, 2, cache.position_bytes)
    assert cache.memory.dtype == dtype
    with pytest.raises(ValueError, match=f"kv_memory is 100 bytes; a page of 64 tokens takes {cache.page_bytes}"):
        KVCache(CONFIG, dtype, 100)
    cache.close()
    assert (cache.memory.size, cache.n_pages) == (0, 0)


def test_a_bad_dtype():
    with pytest.raises(ValueError, match="kv_dtype is 'int8'; choose one of float32, float16"):
        KVCache(CONFIG, "int8", 1 << 20)


def test_the_system_gets_memory_back_that_nobody_uses():
    cache = cache_of(50)
    sequences = [filled(cache, PAGE) for _ in range(50)]
    pages = cache.memory.reshape(50, -1)
    for number, sequence in enumerate(sequences):
        pages[sequence.pages[0]] = number + 1
    kept = sequences[::10]
    for sequence in sequences:
        if sequence not in kept:
            cache.free(sequence)
    assert cache.n_used == 5
    used = {sequence.pages[0] for sequence in kept}
    touched = {number for number in range(50) if pages[number].max()}
    assert used <= touched
    assert len(touched - used) <= 2 * kv_cache.KEPT_FREE
    for sequence in kept:
        assert (pages[sequence.pages[0]] == sequences.index(sequence) + 1).all()
    again = [filled(cache, PAGE) for _ in range(45)]
    assert {sequence.pages[0] for sequence in again} == {*range(50)} - used
    assert all(read(cache, sequence) == list(range(PAGE)) for sequence in again)


def test_texts_that_come_and_go_cost_no_call_of_the_system(monkeypatch):
    monkeypatch.setattr(kv_cache, "KEPT_FREE", 4)
    cache, calls = cache_of(20), []
    cache._lent.give_back = lambda *span: calls.append(span)
    for _ in range(100):
        sequence = filled(cache, 8 * PAGE)
        cache.free(sequence)
        assert cache.n_used == 0
    assert calls == []


def test_more_memory_than_there_is():
    with pytest.raises(KVMemoryError, match=f"kv_memory is {1 << 60} bytes and the system does not give .* bytes: ask"):
        KVCache(CONFIG, "float32", 1 << 60)
