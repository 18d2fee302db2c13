"""Links an object file of kernels and loads its machine code, without LLVM.

Objects are ELF files for x86-64 in LLVM's large code model: sections of code and constants, and relocations, the places
to which the 64-bit address of a symbol is written. llvmlite could link any object, but loading LLVM takes 20 ms at each
start and 50 MiB of memory.

Source: System V ABI, chapter 4 (object files), and its AMD64 supplement, section 4.4 (relocation).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import Any, NamedTuple

_X86_64 = 62
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4  # kinds of sections
_WRITE, _ALLOC = 1, 2  # flags of sections: writable, loaded into memory
_R_X86_64_64 = 1  # relocation: an address of 64 bits
_UNDEFINED = 0  # the section number of a symbol that the process, not the object, defines
_CACHE_LINE = 64


class UnknownObjectError(Exception):
    """An object that uses a feature which this linker lacks."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int  # of a table of symbols: the section with their names
    info: int  # of relocations: the section that they are for
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def link(elf: bytes, entry: str) -> Any:
    """The function `entry(void *, int64)` of an object, for ctypes; it runs without the interpreter's lock.

    Raises UnknownObjectError, and OSError if the system allows no new machine code.
    """
    if elf[:6] != b"\x7fELF\2\1" or struct.unpack_from("<H", elf, 18) != (_X86_64,):
        raise UnknownObjectError("no ELF object for x86-64")
    (table,), (n_sections,) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<H", elf, 60)
    sections = [_Section(*fields) for fields in struct.iter_unpack("<IIQQQQIIQQ", elf[table : table + 64 * n_sections])]
    places, size = _places(sections)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for index, place in places.items():
        memory[place : place + sections[index].size] = _content(elf, sections[index])
    symbols = _Symbols(elf, sections, {index: base + place for index, place in places.items()})
    for section in sections:
        if section.kind == _RELA and section.info in places:
            for offset, kind, symbol, addend in struct.iter_unpack("<QIIq", _content(elf, section)):
                if kind != _R_X86_64_64:
                    raise UnknownObjectError(f"relocation of kind {kind}")
                struct.pack_into("<Q", memory, places[section.info] + offset, symbols.address(symbol) + addend)
    _make_executable(base, size)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(symbols.address_of(entry))
    function.memory = memory  # type: ignore[attr-defined]  # must live as long as the function
    return function


def _content(elf: bytes, section: _Section) -> bytes:
    return elf[section.offset : section.offset + section.size]


def _places(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Offset in bytes of each section of code or constants in the loaded memory, and the total size."""
    places, end = {}, 0
    for index, section in enumerate(sections):
        if section.kind == _PROGBITS and section.flags & (_ALLOC | _WRITE) == _ALLOC and section.size:
            alignment = max(section.alignment, _CACHE_LINE)
            places[index] = -(-end // alignment) * alignment
            end = places[index] + section.size
    return places, end


class _Symbols:
    """The symbols of an object, once its sections have addresses."""

    def __init__(self, elf: bytes, sections: list[_Section], addresses: dict[int, int]) -> None:
        table = next(section for section in sections if section.kind == _SYMTAB)
        self._symbols = [_Symbol(*fields) for fields in struct.iter_unpack("<IBBHQQ", _content(elf, table))]
        self._names = _content(elf, sections[table.link])
        self._addresses = addresses
        self._process = ctypes.CDLL(None)

    def _name(self, symbol: _Symbol) -> str:
        return self._names[symbol.name : self._names.index(b"\0", symbol.name)].decode()

    def address(self, index: int) -> int:
        """Address of the symbol with this index, in the object or in this process."""
        symbol = self._symbols[index]
        if symbol.section in self._addresses:
            return self._addresses[symbol.section] + symbol.value
        name = self._name(symbol)
        if symbol.section != _UNDEFINED or not hasattr(self._process, name):
            raise UnknownObjectError(f"no symbol {name!r}")
        address: int = ctypes.cast(getattr(self._process, name), ctypes.c_void_p).value or 0
        return address

    def address_of(self, name: str) -> int:
        for index, symbol in enumerate(self._symbols):
            if symbol.section in self._addresses and self._name(symbol) == name:
                return self.address(index)
        raise UnknownObjectError(f"no symbol {name!r}")


def _make_executable(base: int, size: int) -> None:
    """Make memory executable and read-only."""
    process = ctypes.CDLL(None, use_errno=True)
    if process.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
        error = ctypes.get_errno()
        raise OSError(error, f"the system allows no new machine code: {os.strerror(error)}", "kernels")
