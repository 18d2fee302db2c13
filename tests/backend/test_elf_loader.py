"""Objects that LLVM makes, linked by hand."""

import ctypes
import platform
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from nbgpt.backend.elf_loader import UnknownObjectError, link

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="its objects are those of x86-64")
PROGRAM = """
@table = internal constant [4 x double] [double 1.0, double 2.0, double 3.0, double 4.5]
declare double @log(double)
declare ptr @memset(ptr, i32, i64)

define internal double @third() noinline {
    %place = getelementptr [4 x double], ptr @table, i64 0, i64 3
    %value = load volatile double, ptr %place
    ret double %value
}

define void @other(ptr %out, i64 %n) {
    store double 0.0, ptr %out
    ret void
}

define void @enter(ptr %out, i64 %n) {
    %x = load double, ptr %out
    %logarithm = call double @log(double %x)
    store double %logarithm, ptr %out
    %second = getelementptr double, ptr %out, i64 1
    %value = call double @third()
    store double %value, ptr %second
    %rest = getelementptr double, ptr %out, i64 2
    %set = call ptr @memset(ptr %rest, i32 255, i64 %n)
    ret void
}
"""


def compiled(program=PROGRAM, **options):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0, jit=True, **options)
    return machine.emit_object(llvm.parse_assembly(program))


def test_code_constants_and_functions_of_the_process_find_each_other():
    out = np.array([np.e**2, 0, 0, 0])
    link(compiled(), "enter")(out.ctypes.data, 8)
    assert out[:2] == pytest.approx([2.0, 4.5])
    assert out[2:].view(np.uint64).tolist() == [(1 << 64) - 1, 0]


def test_an_entry_by_its_name():
    out = np.ones(1)
    link(compiled(), "other")(out.ctypes.data, 0)
    assert out == [0]
    with pytest.raises(UnknownObjectError, match="no symbol 'nothing'"):
        link(compiled(), "nothing")


def test_what_is_not_linked():
    """llvmlite is asked then."""
    with pytest.raises(UnknownObjectError, match="no symbol 'nobody_has_this'"):
        link(compiled(PROGRAM.replace("@log", "@nobody_has_this")), "enter")
    with pytest.raises(UnknownObjectError, match="relocation of kind"):
        link(compiled(codemodel="small"), "enter")
    with pytest.raises(UnknownObjectError, match="no symbol 'table'"):
        link(compiled(PROGRAM.replace("internal constant", "global")), "enter")
    for data in (b"", b"\x7fELF", b"MZ" + compiled()[2:], compiled()[:18] + b"\xb7" + compiled()[19:]):
        with pytest.raises(UnknownObjectError, match="no ELF object"):
            link(data, "enter")


def test_code_is_not_written_to():
    function = link(compiled(), "enter")
    address = ctypes.cast(function, ctypes.c_void_p).value
    spans = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [mode for span, mode in spans if int(span.split("-")[0], 16) <= address < int(span.split("-")[1], 16)]
    assert found == ["r-xp"]
