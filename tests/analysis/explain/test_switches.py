"""What the page says about parts that are off."""

import numpy as np
from packing import unpacked

from nbgpt.analysis.ablation import ablate_each, flop_of_all
from nbgpt.analysis.explain.switches import switched_off, switches_data


def test_predictions_of_each_part(explained, explained_model):
    found = ablate_each(explained_model.engine, explained_model.tokenizer, explained)
    data = switches_data(found)
    np.testing.assert_array_equal(unpacked(data["ids"]), found.ids)
    np.testing.assert_allclose(unpacked(data["probabilities"]), found.probabilities, rtol=2.5e-4)
    assert unpacked(data["divergence"]).min() >= 0


def test_what_costs_too_much_is_left_out(explained, explained_model):
    flop = flop_of_all(explained.config, len(explained.ids))
    arguments = explained_model.engine, explained_model.tokenizer, explained
    assert switched_off(*arguments, max_flop=flop - 1) is None
    assert switched_off(*arguments, max_flop=flop + 1) is not None
    assert switches_data(None) is None
