"""The types of registers, and the one place that knows the target."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types

from nbgpt.abi.layout import LANES
from nbgpt.abi.targets import current_target
from nbgpt.simd import codegen
from nbgpt.simd.codegen import F32, F32X16, I32, MEMORY, TARGET


def function(result, *arguments):
    """A builder in an empty function of these types, and its module."""
    module = ir.Module()
    made = ir.Function(module, ir.FunctionType(result, arguments), "f")
    return ir.IRBuilder(made.append_basic_block()), made, module


def test_numba_compiles_for_the_target():
    assert current_target() == TARGET
    assert TARGET.llvm_features == config.CPU_FEATURES


def test_registers_in_memory_have_whole_elements():
    for dtype, (register, in_memory, align) in MEMORY.items():
        assert align * 8 == dtype.bitwidth
        assert in_memory.element.width == dtype.bitwidth if dtype != types.float32 else in_memory == F32X16
        assert register.llvm_type.count in (LANES, 4 * LANES)


def test_a_shuffle_takes_the_lanes_in_their_order():
    builder, made, module = function(F32X16, F32X16)
    builder.ret(codegen.shuffle(builder, made.args[0], list(range(LANES))[::-1]))
    mask = ", ".join(f"i32 {lane}" for lane in range(LANES))
    reverse = ", ".join(f"i32 {lane}" for lane in reversed(range(LANES)))
    assert f"<{reverse}>" in str(module)
    assert f"<{mask}>" not in str(module)
    llvm.parse_assembly(str(module)).verify()


def test_a_multiply_add_is_fused_where_the_target_can():
    builder, made, module = function(F32X16, F32X16, F32X16, F32X16)
    builder.ret(codegen.fma(builder, *made.args))
    assert ("llvm.fma.v16f32" in str(module)) == TARGET.fma
    assert ("fmul" in str(module)) != TARGET.fma
    llvm.parse_assembly(str(module)).verify()


def test_a_load_says_how_it_is_aligned():
    builder, made, module = function(F32, F32.as_pointer(), I32)
    builder.ret(codegen.element_at(builder, *made.args, F32, 4))
    assert "align 4" in str(module)
