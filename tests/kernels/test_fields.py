"""Accessors of the job's slots: every slot has one, with the type of the table."""

import numpy as np
import pytest
from jobs import new_job
from numba import njit, types

from nbgpt.abi.job import SLOT_TYPES
from nbgpt.kernels import fields
from nbgpt.simd import data


def read(name, job):
    field = getattr(fields, name)

    @njit(error_model="numpy")
    def number(job):
        return field(data(job))

    @njit(error_model="numpy")
    def third_element(job):
        return field(data(job))[2]

    return (third_element if SLOT_TYPES[name].endswith("*") else number)(job)


@pytest.mark.parametrize(("name", "value"), [("n_threads", 3), ("probe_flop", -(2**40)), ("epsilon", 0.25)])
def test_a_number(name, value):
    assert read(name, new_job(**{name: value})) == value


@pytest.mark.parametrize("name", ["weights", "ids", "model_offsets", "x", "sampling", "probe_data"])
def test_a_pointer_has_the_element_type_of_the_table(name):
    array = np.array([1, 2, 203, 4], SLOT_TYPES[name].removesuffix("*"))
    assert read(name, new_job(**{name: array})) == 203


def test_every_slot_has_an_accessor():
    for name, c_type in SLOT_TYPES.items():
        assert callable(getattr(fields, name))
        assert getattr(types, c_type.removesuffix("*"))


def test_a_name_that_is_no_slot():
    with pytest.raises(AttributeError, match="no slot 'n_emdb'"):
        _ = fields.n_emdb
