"""A request by itself: its window, what it asks the kernels for, how it takes tokens and ends."""

import numpy as np
import pytest
from models import config_of

from nbgpt.engine.kv_cache import KVCache
from nbgpt.engine.request import NO_LOGITS, Request, State, Timing
from nbgpt.engine.window import Window
from nbgpt.sampling.params import SamplingParams

CONFIG = config_of(n_ctx=24)
LOGITS = np.arange(CONFIG.n_vocab, dtype=np.float32)  # the last id is the likeliest


def request_of(prompt, max_tokens=5, **options):
    return Request(CONFIG, prompt, SamplingParams(0, max_tokens=max_tokens, **options))


def read(request, n=None):
    """As if a pass had read so many ids."""
    window = request.window
    KVCache(CONFIG, "float32", 1 << 20).extend(window.sequence, len(window.ids))
    window.sequence.length = len(window.ids) if n is None else n


@pytest.mark.parametrize(
    ("n_ids", "n_keep", "expected"),
    [(10, 3, range(10)), (24, 3, range(24)), (25, 3, [0, 1, 2, *range(4, 25)]), (30, 0, range(6, 30))],
)
def test_a_window_begins_with_what_fits(n_ids, n_keep, expected):
    window = Window(list(range(n_ids)), 24, n_keep)
    assert window.ids == list(expected)
    assert window.is_shifted == (n_ids > 24)
    assert window.n_pending == len(window.ids)


def test_a_window_shifts_to_what_it_keeps_and_the_later_half_of_the_rest():
    window = Window(list(range(24)), 24, 4)
    assert not window.shift()
    window.ids.append(24)
    assert window.shift()
    assert window.ids == [0, 1, 2, 3, *range(15, 25)]
    assert window.is_shifted
    assert not window.shift()


def test_a_request_waits_is_read_and_decodes():
    request = request_of([1, 2, 3])
    assert (request.state, request.is_decoding, request.first_wanted) == (State.WAITING, False, 2)
    assert [request.draw_params(place) is None for place in range(3)] == [True, True, False]
    read(request)
    request.take(2, 7, NO_LOGITS)
    assert (request.tokens, request.window.ids, request.is_decoding) == ([7], [1, 2, 3, 7], True)
    assert request.is_drawn_by_kernels


def test_tokens_are_taken_up_to_the_end():
    request = request_of([1], 3)
    request.take_all([4, 5, 6, 7])
    assert (request.tokens, request.finish_reason) == ([4, 5, 6], "length")
    stopped = request_of([1], 9, stop_ids=frozenset({5}))
    stopped.take_all([4, 5, 6, 7])
    assert (stopped.tokens, stopped.finish_reason, stopped.timing.new_tokens) == ([4], "stop", 2)


def test_a_token_is_chosen_from_logits_where_none_was_drawn():
    request = request_of([1], logprobs=1)
    request.take(0, None, LOGITS)
    assert request.tokens == [CONFIG.n_vocab - 1]
    assert request.measured[0].token == CONFIG.n_vocab - 1
    assert request.measured[0].logprob == pytest.approx(-np.log(np.exp(LOGITS - LOGITS[-1]).sum()), abs=1e-6)


def test_what_is_wanted_with_echo_and_prefix():
    for options, first, n_unmeasured in (
        ({"logprobs": 0}, 4, 0),
        ({"logprobs": 0, "echo": True}, 0, 1),
        ({"echo": True}, 4, 0),
        ({"logprobs": 0, "prefix": (8, 9)}, 4, 0),
        ({"prefix": (8, 9)}, 6, 0),
        ({"logprobs": 0, "prefix": (8, 9), "echo": True}, 0, 1),
    ):
        request = request_of([1, 2, 3, 4, 5], **options)
        assert (request.first_wanted, len(request.measured)) == (first, n_unmeasured)


def test_a_request_that_was_put_back_is_not_measured_again():
    request = request_of([1, 2, 3, 4, 5], logprobs=0, echo=True)
    read(request, 3)
    request.state = State.RUNNING
    request.put_back()
    assert (request.state, request.first_wanted) == (State.WAITING, 3)


def test_stopping_forgets_what_follows():
    request = request_of([1, 2], 9, logprobs=0, echo=True)
    for place in range(2):
        request.take(place, None, LOGITS)
    request.take_all([])
    for _ in range(3):
        request.take(len(request.window.ids) - 1, None, LOGITS)
    assert (len(request.tokens), len(request.measured)) == (4, 6)
    request.stop_after(1)
    assert (len(request.tokens), len(request.measured), request.finish_reason) == (1, 3, "stop")


def test_early_ends():
    request = request_of([1])
    assert not request.end_early()
    request.cancel()
    assert request.end_early()
    assert request.finish_reason == "cancelled"
    late = request_of([1], max_time=1e-9)
    assert late.end_early()
    assert late.finish_reason == "time"
    failed = request_of([1])
    failed.fail(ZeroDivisionError())
    assert failed.end_early()
    assert (failed.finish_reason, failed.state, failed.window.is_void) == ("", State.FINISHED, True)


def test_an_id_that_the_model_does_not_have_is_refused_before_it_joins_others():
    for token in (-1, CONFIG.n_vocab):
        with pytest.raises(ValueError, match=rf"token {token} is not in 0\.\.60"):
            request_of([1, token, 2])


def test_speeds():
    timing = Timing(10, 5, 2.0, 0.5)
    assert (timing.prefill_speed, timing.decode_speed) == (5.0, 8.0)
    assert (Timing().prefill_speed, Timing().decode_speed) == (0.0, 0.0)
