"""LLVM code that several intrinsics emit, and the Numba types of vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import models, register_model

from ..abi.layout import LANES
from ..abi.targets import current_target

TARGET = current_target()
config.CPU_FEATURES = TARGET.llvm_features  # else Numba takes the host's, even for another NUMBA_CPU_NAME

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
F32X16, I32X16, I16X16, I16X32, I8X16, I8X64 = (
    ir.VectorType(element, n)
    for element, n in ((F32, LANES), (I32, LANES), (I16, LANES), (I16, 32), (I8, LANES), (I8, 64))
)


class Vector(types.Type):
    """A register: 16 float32, 16 int32, 32 int16, or 64 bytes that dot products take four to a lane."""

    def __init__(self, name: str, llvm_type: ir.VectorType) -> None:
        super().__init__(name=name)
        self.llvm_type = llvm_type


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A value of the type is the LLVM vector itself."""

    def __init__(self, manager: Any, numba_type: Vector) -> None:
        super().__init__(manager, numba_type, numba_type.llvm_type)


f32x16 = Vector("f32x16", F32X16)
i32x16 = Vector("i32x16", I32X16)
i16x32 = Vector("i16x32", I16X32)
u8x64 = Vector("u8x64", I8X64)

# By the element type of a pointer: the register that `load` returns, the vector in memory, and its alignment in bytes.
# Numba has no float16 on CPUs: half floats are uint16 in memory and become float32 when loaded. Pairs of bfloat16 are
# uint32, the first in the lower half.
MEMORY = {
    types.float32: (f32x16, F32X16, 4),
    types.uint16: (f32x16, I16X16, 2),
    types.uint32: (i32x16, I32X16, 4),
    types.uint8: (u8x64, I8X64, 1),
}


def constant(vector: ir.VectorType, value: float) -> ir.Constant:
    """The same value in every lane."""
    return ir.Constant(vector, [value] * vector.count)


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call an LLVM intrinsic or a C function by name; Numba's own `declare_intrinsic` takes no vectors."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def element_at(builder: Any, pointer: Any, index: Any, kind: Any, align: int) -> Any:
    """Load a value of type kind from pointer + index elements."""
    value = builder.load(builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer()))
    value.align = align
    return value


def prefetch(builder: Any, pointer: Any, index: Any, cache: int) -> None:
    """Prefetch the cache line at pointer + index elements into cache 1 or 2; an invalid address is allowed."""
    where = builder.bitcast(builder.gep(pointer, [index]), I8.as_pointer())
    for_reading, locality, of_data = I32(0), I32(4 - cache), I32(1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), where, for_reading, locality, of_data)


def register_at(builder: Any, dtype: Any, pointer: Any, index: Any) -> Any:
    """The register that `load` returns for pointer + index elements of dtype."""
    _, in_memory, align = MEMORY[dtype]
    value = element_at(builder, pointer, index, in_memory, align)
    return widen_halves(builder, value) if dtype == types.uint16 else value


def splat(builder: Any, scalar: Any) -> Any:
    """A scalar in every lane."""
    vector = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    return shuffle(builder, first, [0] * LANES)


def shuffle(builder: Any, vector: Any, lanes: list[int]) -> Any:
    """The given lanes of a vector, in that order."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z. A target without the instruction rounds twice, because LLVM would call libm for each lane."""
    if not TARGET.fma:
        return builder.fadd(builder.fmul(x, y), z)
    return call(builder, "llvm.fma.v16f32", F32X16, x, y, z)


def widen_halves(builder: Any, halves: Any) -> Any:
    """float16 in <16 x i16> -> <16 x float>; exact for finite values."""
    if TARGET.f16c:
        return builder.fpext(builder.bitcast(halves, ir.VectorType(ir.HalfType(), LANES)), F32X16)
    # Shift exponent and mantissa to their bits in float32; a product with 2^112 corrects the bias of the exponent.
    bits = builder.zext(halves, I32X16)
    magnitude = builder.shl(builder.and_(bits, constant(I32X16, 0x7FFF)), constant(I32X16, 13))
    sign = builder.shl(builder.and_(bits, constant(I32X16, 0x8000)), constant(I32X16, 16))
    value = builder.fmul(builder.bitcast(magnitude, F32X16), constant(F32X16, 2.0**112))
    return builder.bitcast(builder.or_(builder.bitcast(value, I32X16), sign), F32X16)


def bfloat_of_lower(builder: Any, bits: Any) -> Any:
    """The bfloat16 in the lower half of each <16 x i32> -> <16 x float>: a bfloat16 is the upper half of a float32."""
    return builder.bitcast(builder.shl(bits, constant(I32X16, 16)), F32X16)


def bfloat_of_upper(builder: Any, bits: Any) -> Any:
    """The bfloat16 in the upper half of each <16 x i32> -> <16 x float>."""
    return builder.bitcast(builder.and_(bits, constant(I32X16, 0xFFFF0000)), F32X16)


def narrow(builder: Any, value: Any) -> Any:
    """float32 -> the bits of the nearest float16, ties to even; larger magnitudes become the largest finite ones."""
    for comparison, limit in (("<", F32(-65504.0)), (">", F32(65504.0))):
        value = builder.select(builder.fcmp_ordered(comparison, value, limit), limit, value)
    if TARGET.f16c:
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), I16)
    # Adding a power of two that leaves 10 bits of mantissa rounds; below 2^-14 the steps of float16 are all 2^-24.
    bits = builder.bitcast(value, I32)
    magnitude = builder.bitcast(builder.and_(bits, I32(0x7FFFFFFF)), F32)
    exponent = builder.and_(builder.bitcast(magnitude, I32), I32(0x7F800000))
    exponent = builder.select(builder.icmp_unsigned("<", exponent, I32(113 << 23)), I32(113 << 23), exponent)
    magic = builder.bitcast(builder.add(exponent, I32(13 << 23)), F32)
    rounded = builder.bitcast(builder.fsub(builder.fadd(magnitude, magic), magic), F32)
    scaled = builder.bitcast(builder.fmul(rounded, F32(2.0**-112)), I32)  # corrects the bias of the exponent
    half = builder.lshr(scaled, I32(13))
    sign = builder.and_(builder.lshr(bits, I32(16)), I32(0x8000))
    return builder.trunc(builder.or_(half, sign), I16)
