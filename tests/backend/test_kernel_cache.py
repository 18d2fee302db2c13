"""Kernel objects: found, compiled, kept and trusted."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from models import config_of, open_model, random_params, read, write_native
from waiting import wait_until

import nbgpt
from nbgpt.abi import amx, targets
from nbgpt.abi.amx import NEEDED
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.abi.targets import SHIPPED, Target, current_target, host_target, shipped_targets
from nbgpt.backend import kernel_cache
from nbgpt.backend.kernel_cache import KernelError, find_object, read_object
from nbgpt.engine import model_runner

DTYPE = "float32"
CONFIG = config_of(n_layer=1)
PACKAGE = Path(nbgpt.__file__).parent
CPU = os.environ.get("NUMBA_CPU_NAME", "this CPU")
PASS = """
import hashlib, sys
from pathlib import Path
from nbgpt import weights
from nbgpt.engine.kv_cache import Sequence
from nbgpt.engine.engine import Engine

model = Engine(weights.load(Path(sys.argv[1])), threads=2)
sequence = Sequence()
logits = model.runner.forward(range(60), [sequence] * 60, range(60))
print(hashlib.sha256(logits.tobytes()).hexdigest(), *{"numba", "llvmlite"} & {*sys.modules})
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "native.safetensors"
    return write_native(path, random_params(CONFIG), CONFIG, DTYPE)


@pytest.fixture(scope="module")
def compiled(home, path):
    """An object that this session has compiled."""
    read(open_model(path), [1])
    found = find_object(DTYPE)
    assert found.state == "cached"
    return found


@pytest.fixture
def kept(compiled, tmp_path, monkeypatch):
    """The path of the same object in a cache of its own."""
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    path = tmp_path / "home/kernels" / compiled.path.name
    path.parent.mkdir(mode=0o700, parents=True)
    shutil.copy(compiled.path, path)
    return path


@pytest.fixture
def compilations(compiled, monkeypatch):
    """Stands in for the compiler, which takes seconds: copies what it made before, and lists who asked."""
    asked = []

    def compile_again(wanted):
        asked.append(wanted.path.name)
        return compiled.path.read_bytes()

    monkeypatch.setattr(kernel_cache, "_compile", compile_again)
    return asked


def load():
    """As if no kernels had been loaded in this process."""
    return kernel_cache.load_kernels.__wrapped__(DTYPE)


def start_pass(path, home, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", PASS, str(path)],
        env={**os.environ, "NBGPT_HOME": str(home), "PYTHONPATH": str(PACKAGE.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- The sources ------------------------------------------------------------------------------------------------------


def edited_digest(monkeypatch, package):
    monkeypatch.setattr(kernel_cache, "_PACKAGE", package)
    return kernel_cache.source_digest.__wrapped__()


def test_an_edit_of_any_source_is_noticed(tmp_path, monkeypatch):
    package = Path(shutil.copytree(PACKAGE, tmp_path / "nbgpt"))
    digests = {edited_digest(monkeypatch, package)}
    assert digests == {kernel_cache.source_digest()}
    listed = "import nbgpt.backend.compiler, nbgpt.kernels.forward, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True, cwd=tmp_path)
    no_sources = {"nbgpt.version"}  # of the package: no kernel is made of it
    names = [name for name in modules.stdout.split() if name.startswith("nbgpt.") and name not in no_sources]
    assert "nbgpt.kernels.matmul" in names
    for name in names:
        source = tmp_path / name.replace(".", "/")
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        source.write_text(source.read_text() + "\n# edited\n")
        digests.add(edited_digest(monkeypatch, package))
    assert len(digests) == 1 + len(names)


def test_an_edited_kernel_is_compiled_again(tmp_path, monkeypatch, compiled):
    package = Path(shutil.copytree(PACKAGE, tmp_path / "nbgpt"))
    (package / "kernels/gelu.py").write_text("# edited\n")
    digest = edited_digest(monkeypatch, package)
    monkeypatch.setattr(kernel_cache, "source_digest", lambda: digest)
    assert find_object(DTYPE).state == "to be compiled"
    assert find_object(DTYPE).path != compiled.path


# --- Processes --------------------------------------------------------------------------------------------------------


def test_two_cold_processes_and_a_warm_one(path, tmp_path):
    home = tmp_path / "home"
    both = [start_pass(path, home) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    digest = outputs[0][0].split()[0]
    for output, messages in outputs:
        assert output == f"{digest}\n"
        assert messages == f"nbgpt: compiling {DTYPE} kernels for {CPU}, once (5 to 20 s)\n"
    [kept] = home.glob("kernels/*")  # one object, nothing half-written
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    before = kept.stat().st_mtime_ns
    assert start_pass(path, home).communicate(timeout=60) == (f"{digest}\n", "")
    assert kept.stat().st_mtime_ns == before
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.skipif(not SHIPPED[-1].features <= host_target().features, reason="this CPU lacks AVX2 or so")
@pytest.mark.skipif(not current_target().fma, reason="without fused multiply-add results are rounded twice")
def test_another_cpu_gives_the_same_bits(path, tmp_path, compiled):
    """Compiled with narrower registers and other tiles."""
    expected, _ = start_pass(path, compiled.path.parent.parent).communicate(timeout=60)
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}
    output, messages = start_pass(path, tmp_path, **features).communicate(timeout=120)
    assert output == expected
    assert "for haswell" in messages


@pytest.mark.parametrize("has_fma", [True, False])
def test_a_cpu_without_fma_is_named(monkeypatch, capsys, has_fma):
    target = Target("some-cpu", frozenset({"sse2", "fma"} if has_fma else {"sse2"}))
    monkeypatch.setattr(kernel_cache, "_chosen_target", lambda: target)
    kernel_cache._note_other_bits.__wrapped__()
    assert ("no FMA instruction" in capsys.readouterr().err) == (not has_fma)


def test_numbas_other_settings_do_not_reach_the_compiler(compiled, monkeypatch):
    given = []
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(subprocess, "run", lambda *_, env, **__: given.append(env) or Mock(returncode=0))
    for target in (None, SHIPPED[0]):
        kernel_cache._compile(replace(compiled, target=target))
    host, shipped = ({name for name in env if name.startswith("NUMBA_")} for env in given)
    assert (host, shipped) == (set(), {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"})


def test_a_compiler_that_fails_says_why(compiled, kept, monkeypatch):
    kept.unlink()
    monkeypatch.setattr(kernel_cache, "find_object", lambda dtype: replace(compiled, dtype="int3", path=kept))
    monkeypatch.setattr(kernel_cache, "_cached_object", kernel_cache.find_object)
    with pytest.raises(KernelError, match=r"^cannot compile the kernels for .*: .*invalid choice: 'int3'.*$"):
        load()
    assert list(kept.parent.iterdir()) == []


def test_nothing_is_left_when_a_process_ends_while_its_kernels_are_compiled(path, tmp_path):
    home = tmp_path / "home"
    process = start_pass(path, home)
    assert "compiling" in process.stderr.readline()
    time.sleep(0.5)
    process.terminate()
    process.communicate(timeout=60)
    assert list(home.rglob("*")) == []


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the child is found in /proc")
def test_a_killed_process_takes_its_compiler_with_it(path, tmp_path):
    process = start_pass(path, tmp_path / "home")
    assert "compiling" in process.stderr.readline()
    wait_until(lambda: children(process.pid))
    found = children(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in found))  # a zombie has none


def test_the_compilers_output_needs_no_proc(compiled, monkeypatch):
    given = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: given.extend(command) or Mock(returncode=0))
    kernel_cache._compile(compiled)
    assert "-" in given
    assert not any(part.startswith(("/dev/", "/proc/")) for part in given)


def test_kernels_that_were_cached_with_proc_are_found_without(kept, compilations, monkeypatch):
    monkeypatch.setattr(kernel_cache, "described_host", host_target)
    assert (find_object(DTYPE).state, find_object(DTYPE).path) == ("cached", kept)
    assert load()
    assert compilations == []
    other = replace(host_target(), cpu="another")
    monkeypatch.setattr(kernel_cache, "described_host", lambda: other)
    monkeypatch.setattr(kernel_cache, "host_target", lambda: other)
    assert find_object(DTYPE).state == "to be compiled"


def test_kernels_of_an_upgrade_are_not_run_by_a_process_from_before_it(kept, compilations, monkeypatch):
    """The compiler reads the sources that are on disk now, and writes the job of these into the header."""
    kept.unlink()
    monkeypatch.setattr(kernel_cache, "SLOT", {**kernel_cache.SLOT, "n_layer": 0})
    with pytest.raises(KernelError, match=r"was nbgpt changed while it ran\?\): kernels of other sources"):
        load()
    assert not list(kept.parent.iterdir())


# --- What is not loaded -----------------------------------------------------------------------------------------------


def test_a_good_object_is_loaded(kept, compilations, capfd):
    assert load()
    assert compilations == []
    assert capfd.readouterr() == ("", "")


def truncate(data):
    return data[:-1]


def flip_a_bit(data):
    return data[:-500] + bytes([data[-500] ^ 1]) + data[-499:]


def from_another_cpu(data):
    return data.replace(b'"cpu": "', b'"cpu": "not-', 1)


def with_other_features(data):
    return data.replace(b'"features": "', b'"features": "+', 1)


def with_another_job(data):
    return data.replace(b'"n_layer": ', b'"n_layer": 1', 1)


def for_another_dtype(data):
    return data.replace(b'"dtype": "float32"', b'"dtype": "float16"', 1)


@pytest.mark.parametrize(
    "change",
    [
        truncate,
        flip_a_bit,
        from_another_cpu,
        with_other_features,
        with_another_job,
        for_another_dtype,
        lambda data: data[: data.index(b"\n")],
        lambda data: b"",
        lambda data: data.partition(b"\n")[2],
        lambda data: b"[]\n" + data,
        lambda data: b"{}\n" + data,
        lambda data: b"\x7fELF" + data,
    ],
)
def test_another_file_is_rebuilt(compiled, kept, compilations, change):
    good = kept.read_bytes()
    kept.write_bytes(change(good))
    with pytest.raises(KernelError, match=r"^here: (damaged|not a kernel object|kernels of other sources)"):
        read_object(kept.read_bytes(), compiled.facts, "here")
    assert load()
    assert compilations == [kept.name]
    assert kept.read_bytes() == good
    assert load()
    assert compilations == [kept.name]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_rebuilt(kept, compilations, mode):
    kept.chmod(mode)
    assert load()
    assert compilations == [kept.name]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o730])
def test_a_folder_that_others_can_write_is_not_used(kept, compilations, capfd, mode):
    before = kept.stat().st_mtime_ns
    kept.parent.chmod(mode)
    assert load()
    assert compilations == [kept.name]
    assert (
        "is not a private writable folder: kernels not kept; set NBGPT_HOME to a folder that is"
        in capfd.readouterr().err
    )
    assert kept.stat().st_mtime_ns == before


def test_a_file_of_another_user_is_not_loaded(kept, compilations, monkeypatch):
    if os.getuid() == 0:
        os.chown(kept, 12345, -1)
    else:
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert load()
    assert compilations == [kept.name]


@pytest.mark.skipif(not kernel_cache.on_shipped_platform(), reason="elsewhere llvmlite links anyway")
def test_both_linkers_give_the_same_bits(path, compiled, monkeypatch):
    expected = read(open_model(path), [1, 2, 3])
    monkeypatch.setattr(kernel_cache.elf_loader, "_X86_64", 0)
    kernels = load()
    assert kernels.enter.engine
    monkeypatch.setattr(model_runner, "load_kernels", lambda dtype: kernels)
    assert np.array_equal(read(open_model(path), [1, 2, 3]), expected)


# --- The cache --------------------------------------------------------------------------------------------------------


def test_the_umask_does_not_matter(kept, compilations):
    """A file that the user's group may write would be compiled again at each start."""
    shutil.rmtree(kept.parent.parent)
    umask = os.umask(0)
    try:
        load()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    load()
    assert len(compilations) == 1


def test_no_cache_where_a_file_is_in_the_way(tmp_path, monkeypatch, compilations, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "file"))
    assert load()
    assert len(compilations) == 1
    assert f"{tmp_path / 'file/kernels'} is not a private writable folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "cannot be written: the disk is full: kernels not kept; make room, or set NBGPT_HOME"),
        (errno.EDQUOT, "cannot be written: the disk is full: kernels not kept"),
        (errno.EIO, "is not a private writable folder: kernels not kept"),
    ],
)
def test_a_disk_that_is_full(kept, compilations, monkeypatch, capfd, number, said):
    kept.unlink()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert load()
    assert f"{kept.parent} {said}" in capfd.readouterr().err
    assert list(kept.parent.iterdir()) == []


def test_a_user_without_a_home(monkeypatch, compilations, capfd):
    for name in ("NBGPT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom the system does not know
    assert load()
    assert len(compilations) == 1
    assert "HOME is not a private writable folder: kernels not kept; set NBGPT_HOME" in capfd.readouterr().err


def test_a_home_that_may_not_be_entered(kept, monkeypatch, compilations, capfd):
    denied = kept.parent.parent
    ask = Path.stat

    def stat_or_refuse(path, **options):
        if path.is_relative_to(denied) and path != denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ask(path, **options)

    monkeypatch.setattr(Path, "stat", stat_or_refuse)
    assert find_object(DTYPE).state == "to be compiled"
    assert load()
    assert len(compilations) == 1
    assert f"{denied / 'kernels'} is not a private writable folder: kernels not kept" in capfd.readouterr().err


@pytest.mark.parametrize("exists", [True, False], ids=["folder exists", "no folder"])
def test_a_read_only_cache(kept, compilations, monkeypatch, capfd, exists):
    kept.unlink()
    home = kept.parent.parent
    if not exists:
        kept.parent.rmdir()
    for folder in [kept.parent, home] if exists else [home]:
        folder.chmod(0o500)
    if os.getuid() == 0:  # whom no mode keeps out
        monkeypatch.setattr(os, "access", lambda *args: False)
        monkeypatch.setattr(Path, "mkdir", refuse)
    assert load()
    assert len(compilations) == 1
    assert "kernels not kept" in capfd.readouterr().err
    assert not kept.exists()
    home.chmod(0o700)
    assert list(home.rglob("*")) == ([kept.parent] if exists else [])


def refuse(path, mode=0o777, parents=False, exist_ok=False):
    if not (exist_ok and path.is_dir()):
        raise PermissionError(13, "Permission denied", str(path))


def test_a_good_object_in_a_read_only_cache_is_loaded(kept, compilations):
    kept.chmod(0o400)
    kept.parent.chmod(0o500)
    assert load()
    assert compilations == []


# --- What a wheel carries ---------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installation with objects for every shipped target, on a machine that could use the best."""
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    monkeypatch.setattr(kernel_cache, "_PACKAGE", tmp_path)
    monkeypatch.setattr(kernel_cache, "on_shipped_platform", lambda: True)
    monkeypatch.setattr(kernel_cache, "_compile", lambda wanted: b"")
    (tmp_path / "objects").mkdir()
    kernel_cache.build_shipped(tmp_path / "objects", "x86_64")
    return lambda features: monkeypatch.setattr(kernel_cache, "described_host", lambda: Target("some-cpu", features))


WITH_AMX, WITH_BF16, BEST, PLAIN = SHIPPED


def test_the_best_shipped_object_is_used(wheel):
    for features, expected in [
        (BEST.features, BEST),
        (BEST.features | {"avx512fp16"}, BEST),
        (PLAIN.features, PLAIN),
        (PLAIN.features | {"sse4a"}, PLAIN),
        (PLAIN.features | {"avxvnni"}, PLAIN),  # of which the kernels for float32 make no use
    ]:
        wheel(features)
        found = find_object(DTYPE)
        assert (found.state, found.target) == ("shipped", expected)


def test_a_cpu_that_no_shipped_object_suits_compiles(wheel):
    for features in (
        PLAIN.features - {"bmi2"},  # could not run it
        BEST.features - {"avx512vnni"},  # can do more than the second best asks for
        frozenset(),
    ):
        wheel(features)
        assert find_object(DTYPE).state == "to be compiled"


def test_a_wheel_carries_an_object_with_amx_for_each_type_that_uses_it(wheel):
    assert {dtype for dtype in HEAD_DTYPE if WITH_AMX in shipped_targets(dtype, "x86_64")} == set(amx.DTYPES)
    n_objects = len(HEAD_DTYPE) * 2 + len(amx.DTYPES) + 1  # and one of bfloat16 for CPUs that multiply pairs of it
    assert len(list((kernel_cache._PACKAGE / "objects").iterdir())) == n_objects


@pytest.mark.parametrize(("asked", "refusal"), [("0", ""), ("1", "Operation not permitted"), ("1", "")])
def test_the_shipped_object_with_amx_has_to_be_asked_for_and_allowed(wheel, monkeypatch, tmp_path, asked, refusal):
    monkeypatch.setenv("NBGPT_AMX", asked)
    monkeypatch.setattr(amx, "_refusal", lambda: refusal)
    flags = " ".join(name.replace("-", "_") for name in WITH_AMX.features | {"amx-fp16"})
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id: GenuineIntel\ncpu family: 6\nmodel: 143\nflags: {flags}\n\n")
    monkeypatch.setattr(kernel_cache, "described_host", lambda: targets.described_host(cpuinfo))
    for dtype in HEAD_DTYPE:
        found, is_used = find_object(dtype), asked == "1" and not refusal and dtype in amx.DTYPES
        without = WITH_BF16 if dtype == "bfloat16" else BEST
        assert (found.state, found.target) == ("shipped", WITH_AMX if is_used else without)


def test_compiled_kernels_with_amx_are_other_kernels(wheel):
    """Only a host that may use it has the features."""
    wheel(WITH_AMX.features)
    path = kernel_cache._cached_object("int8").path
    wheel(BEST.features)
    assert kernel_cache._cached_object("int8").path != path


@pytest.mark.parametrize(("asked", "refusal"), [("0", ""), ("1", "Operation not permitted"), ("1", "")])
def test_amx_of_a_named_cpu_needs_the_permission_too(monkeypatch, asked, refusal):
    monkeypatch.setenv("NBGPT_AMX", asked)
    monkeypatch.setattr(amx, "_refusal", lambda: refusal)
    monkeypatch.setenv("NUMBA_CPU_NAME", "sapphirerapids")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", ",".join(f"+{name}" for name in sorted(NEEDED)))
    assert find_object(DTYPE).target.amx == (asked == "1" and not refusal)


def test_another_platform_compiles(wheel, monkeypatch):
    wheel(BEST.features)
    monkeypatch.setattr(kernel_cache, "on_shipped_platform", lambda: False)
    assert find_object(DTYPE).state == "to be compiled"


def test_a_chosen_cpu_compiles(wheel, monkeypatch):
    wheel(BEST.features)
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert find_object(DTYPE).state == "to be compiled"


def test_an_installation_without_objects_compiles(wheel):
    wheel(BEST.features)
    shutil.rmtree(kernel_cache._PACKAGE / "objects")
    assert find_object(DTYPE).state == "to be compiled"


def test_a_shipped_object_is_loaded(tmp_path, compiled, kept, compilations, monkeypatch):
    """Whatever its mode: who can change it can change the rest of nbgpt too. A damaged one is compiled instead."""
    shipped = tmp_path / "shipped.o"
    shutil.copy(compiled.path, shipped)
    shipped.chmod(0o664)
    monkeypatch.setattr(kernel_cache, "find_object", lambda dtype: replace(compiled, path=shipped, state="shipped"))
    kept.unlink()
    assert load()
    assert compilations == []
    shipped.write_bytes(truncate(shipped.read_bytes()))
    for _ in range(2):
        assert load()
        assert compilations == [kept.name]
