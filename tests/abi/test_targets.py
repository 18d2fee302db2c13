"""Which CPU the kernels are compiled for: the host, or the one that the environment names."""

import ctypes
import itertools
import os
import platform
import subprocess
import sys
from unittest.mock import Mock

import llvmlite.binding as llvm
import pytest

from nbgpt.abi import amx, targets
from nbgpt.abi.targets import (
    SHIPPED,
    SHIPPED_FOR,
    Target,
    amx_obstacle,
    current_target,
    described_host,
    host_target,
    shipped_targets,
)

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="the features of this test are those of x86-64")


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """Whatever CPU the other tests are run for."""
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)


def assembly(target):
    """What LLVM makes of a fused multiply-add of 16 lanes."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=target.cpu, features=target.llvm_features)
    vector = "<16 x float>"
    return machine.emit_assembly(
        llvm.parse_assembly(f"""
            declare {vector} @llvm.fma.v16f32({vector}, {vector}, {vector})
            define {vector} @multiply_add({vector} %x, {vector} %y) {{
                %z = call {vector} @llvm.fma.v16f32({vector} %x, {vector} %y, {vector} %x)
                ret {vector} %z
            }}""")
    )


def test_the_host_knows_every_feature():
    host = current_target()
    assert host == host_target()
    assert host.features
    assert not host.features & host.missing
    assert host.features | host.missing == frozenset(llvm.get_host_cpu_features())


@x86_only
def test_linux_and_llvm_agree_about_the_host():
    """At least about what objects are chosen by."""
    named = SHIPPED[0].features
    assert described_host().features & named == host_target().features & named
    assert described_host().used == host_target().used


def test_another_cpu_is_described_in_another_way(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    said = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nflags\t\t: fma abm bmi1 avx512_vnni\n\n"
    cpuinfo.write_text(said + said.replace("fma", "sse"))
    assert described_host(cpuinfo) == Target("GenuineIntel-6-85", frozenset(["fma", "lzcnt", "bmi", "avx512vnni"]))
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n\n")
    assert described_host(cpuinfo) == host_target()
    assert described_host(tmp_path / "nothing") == host_target()


AMX_FLAGS = "fma avx512f avx512bw avx512vl avx512dq avx512_vnni amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(("asked", "refusal"), [("0", ""), ("1", "Operation not permitted"), ("1", "")])
def test_amx_is_a_feature_only_where_it_may_be_used(tmp_path, monkeypatch, asked, refusal):
    monkeypatch.setenv("NBGPT_AMX", asked)
    monkeypatch.setattr(amx, "_refusal", lambda: refusal)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id: GenuineIntel\ncpu family: 6\nmodel: 143\nflags: {AMX_FLAGS}\n\n")
    host, may_be_used = described_host(cpuinfo), asked == "1" and not refusal
    assert (host.amx, host.used[-1]) == (may_be_used, "amx" if may_be_used else "vnni")
    assert [host.used_by(dtype)[-1] for dtype in ("float32", "int8")] == ["avx512", host.used[-1]]
    assert ("+amx-int8" in host.llvm_features) == may_be_used
    assert ("-amx-int8" in host.llvm_features) == (not may_be_used)  # LLVM knows that the CPU has it
    features = ",".join(f"+{name}" for name in amx.NEEDED)
    monkeypatch.setenv("NUMBA_CPU_NAME", "sapphirerapids")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    assert current_target().amx  # named features are compiled for, and run only if allowed
    assert current_target().allowed.amx == may_be_used
    assert (amx_obstacle() == "") == may_be_used


@x86_only
def test_features_that_a_virtual_machine_hides_are_not_used(monkeypatch):
    hidden = dict.fromkeys(("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"), False)
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "sapphirerapids")
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"fma": True, "avx2": True, "f16c": True} | hidden)
    assert host_target().used == ("fma", "f16c")
    assert "zmm" not in assembly(host_target())
    assert "zmm" in assembly(Target("sapphirerapids", frozenset()))


@x86_only
@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("generic", ()),
        ("haswell", ("fma", "f16c")),
        ("x86-64-v3", ("fma", "f16c")),
        ("skylake-avx512", ("fma", "f16c", "avx512")),
        ("cascadelake", ("fma", "f16c", "avx512", "vnni")),
    ],
)
def test_a_named_cpu(monkeypatch, name, used):
    monkeypatch.setenv("NUMBA_CPU_NAME", name)
    target = current_target()
    assert (target.cpu, target.used) == (name, used)
    assert ("vfmadd" in assembly(target)) == target.fma
    assert ("zmm" in assembly(target)) == target.avx512
    assert all(feature in target.summary for feature in (name, *used))


def test_features_added_and_removed(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "skylake-avx512")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx512vnni,-f16c")
    target = current_target()
    assert target.vnni
    assert "f16c" not in target.features
    assert target.llvm_features.endswith(",-f16c")


def test_an_unknown_cpu_needs_features(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "pentium9")
    with pytest.raises(ValueError, match=r"'pentium9'; choose one of generic, .*haswell"):
        current_target()
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+fma")
    assert current_target().used == ("fma",)


def test_the_hosts_own_name_is_the_host(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", llvm.get_host_cpu_name())
    assert current_target().used == host_target().used


@pytest.mark.parametrize("target", [*SHIPPED, host_target()], ids=lambda target: target.cpu)
def test_the_environment_carries_a_target_to_the_compiler(monkeypatch, target):
    monkeypatch.setenv("NUMBA_CPU_NAME", target.cpu)
    monkeypatch.setenv("NUMBA_CPU_FEATURES", target.llvm_features)
    assert current_target() == target


@x86_only
def test_shipped_targets_come_best_first():
    plain, vectors = ("fma", "f16c"), ("fma", "f16c", "avx512", "vnni")
    assert [target.used for target in SHIPPED] == [(*vectors, "bf16", "amx"), (*vectors, "bf16"), vectors, plain]
    assert shipped_targets("bfloat16", "x86_64") == list(SHIPPED)
    assert shipped_targets("int8", "x86_64") == [SHIPPED[0], *SHIPPED[2:]]
    assert shipped_targets("float32", "x86_64") == list(SHIPPED[2:])
    for better, worse in itertools.pairwise(SHIPPED):
        assert better.features > worse.features
    assert SHIPPED[0].features <= frozenset(llvm.get_host_cpu_features())  # names that LLVM knows


# --- ARM --------------------------------------------------------------------------------------------------------------

LINUX, APPLE = "aarch64-unknown-linux-gnu", "aarch64-apple-darwin24.1.0"
ASSEMBLY = """
import re, sys
from nbgpt.abi import targets

if sys.argv[1] != "aarch64-unknown-linux-gnu":  # for which any machine compiles; another system is its own alone
    targets.Target.triple = property(lambda self: sys.argv[1])

from nbgpt.backend.compiler import optimized

_, module, machine = optimized("int8")
print(module.triple, machine.emit_object(module)[:4].hex(), *set(re.findall(r"call i64 .*@syscall", str(module))))
print(*set(re.findall(r"^\\t([a-z0-9.]+)\\b", machine.emit_assembly(module), re.M)))
"""


@pytest.mark.parametrize(
    ("cpu", "features", "triple", "magic", "has_dots"),
    [
        ("neoverse-n1", "", LINUX, "7f454c46", True),
        ("cortex-a72", "", LINUX, "7f454c46", False),
        ("apple-m1", "+neon,+dotprod", APPLE, "cffaedfe", True),
    ],
)
def test_arm_gets_fused_multiply_adds_and_dot_products(cpu, features, triple, magic, has_dots):
    """As far as LLVM can tell on another machine; bench/emulated.py runs the kernels for Linux."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {sys.path}\n{ASSEMBLY}", triple],
        env={**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    facts, instructions = done.stdout.splitlines()
    assert facts == f"{triple} {magic} call i64 @syscall"
    assert any(name.startswith("fmla") for name in instructions.split())
    assert any(name.startswith("sdot") for name in instructions.split()) == has_dots


@pytest.fixture
def on_arm(monkeypatch):
    """Give the two words of AT_HWCAP and AT_HWCAP2 that an ARM Linux would."""
    monkeypatch.setattr(targets, "ARCHITECTURE", "aarch64")
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {})  # as without /proc/cpuinfo
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "generic")

    def give(hwcap, hwcap2=0):
        process = Mock(getauxval=Mock(side_effect={16: hwcap, 26: hwcap2}.__getitem__))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: process)

    return give


@pytest.mark.skipif(sys.platform != "linux", reason="getauxval is Linux's")
def test_arm_is_described_without_proc(on_arm, tmp_path):
    on_arm(0b11)  # fp, asimd
    plain = described_host(tmp_path / "nothing")
    assert plain.used == host_target().used == ("fma", "f16c")
    on_arm(0b11 | 1 << 20)  # asimddp
    assert described_host().used == host_target().used == ("fma", "f16c", "dotprod")
    assert described_host().cpu != plain.cpu
    on_arm(0b11, 1)
    assert described_host().cpu != plain.cpu  # kernels that LLVM makes for the other may use what this one lacks


def test_shipped_targets_for_arm_come_best_first():
    best, plain = SHIPPED_FOR["aarch64"]
    assert (best.used, plain.used) == (("fma", "f16c", "dotprod"), ("fma", "f16c"))
    assert best.features > plain.features
    assert {target.architecture for target in (best, plain)} == {"aarch64"}


def test_the_triple_names_this_system_or_linux_on_another_cpu(monkeypatch):
    arm, x86 = SHIPPED_FOR["aarch64"][0], SHIPPED_FOR["x86_64"][0]
    monkeypatch.setattr(targets, "ARCHITECTURE", "aarch64")
    monkeypatch.setattr(llvm, "get_process_triple", lambda: "arm64-apple-darwin24.1.0")
    assert arm.triple == "aarch64-apple-darwin24.1.0"
    assert x86.triple == "x86_64-unknown-linux-gnu"
