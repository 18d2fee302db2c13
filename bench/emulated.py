"""Do kernels for ARM compute the same bits? `nbgpt verify` in an arm64 Debian, whose programs QEMU emulates.

    apt-get install debootstrap qemu-user-static
    python bench/emulated.py

Needs the rights of root on a Linux for x86-64, 3 GB in --root, and a network for what is not there yet. It builds the
wheel for aarch64, whose kernels are compiled here, installs it in the Debian, and verifies there:

    the wheel's kernels     on an emulated Neoverse N1, which has integer dot products, and a Cortex-A72, which has none
    kernels compiled there  by Numba and LLVM for aarch64: one to two minutes for each type of weights

Writes results/targets.json and targets.md, as bench/targets.py does. Exit code 1 if a target has other bits.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from targets import OTHER, RESULTS, Results, verify

REPOSITORY = Path(__file__).parent.parent
QEMU = "/usr/bin/qemu-aarch64-static"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"  # ELF, 64 bits, aarch64
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"  # or a shared object
PYTHON = "3.11"  # of Debian 12
SITE = "opt/site"  # in the Debian: nbgpt and what it needs
RUNS = {
    "neoverse-n1, from the wheel": {"QEMU_CPU": "neoverse-n1"},
    "cortex-a72, from the wheel": {"QEMU_CPU": "cortex-a72"},
    "neoverse-n1": {"QEMU_CPU": "neoverse-n1", "NUMBA_CPU_NAME": "neoverse-n1"},
    "generic": {"QEMU_CPU": "cortex-a72", "NUMBA_CPU_NAME": "generic"},
}
"""Row of the table -> environment of the emulated process: a named CPU is compiled for there."""


def register() -> None:
    """Let Linux start programs for aarch64 by QEMU, which it opens now, so that a chroot need not contain it."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    if not any("aarch64" in one.name for one in BINFMT.iterdir()):
        (BINFMT / "register").write_text(f":qemu-aarch64:M::{_MAGIC}:{_MASK}:{QEMU}:F")


def make_debian(root: Path) -> None:
    """A Debian 12 for arm64 with Python, if there is none yet."""
    if not (root / "usr/bin/python3").exists():
        command = ["debootstrap", "--arch=arm64", "--variant=minbase", "--include=python3", "bookworm", str(root)]
        subprocess.run(command, check=True)


def install(root: Path) -> None:
    """Build the wheel for aarch64 and install it in the Debian, with the packages that it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", str(REPOSITORY)],
            env={**os.environ, "NBGPT_WHEEL": "aarch64"},
            check=True,
        )
        [wheel] = Path(folder).glob("*.whl")
        where = ["--upgrade", f"--target={root / SITE}", "--only-binary=:all:", f"--python-version={PYTHON}"]
        subprocess.run([*pip, "install", *where, *platforms, str(wheel)], check=True)


def in_debian(root: Path, *command: str) -> list[str]:
    """A command that runs another one in the Debian, with a /proc that goes when it ends."""
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(root), *command]


def versions(root: Path) -> str:
    """Of QEMU, and of Python and the packages that bits could depend on."""
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    names = {path.name.removesuffix(".dist-info") for path in (root / SITE).glob("*.dist-info")}
    packages = sorted(name.replace("-", " ") for name in names if name.startswith(("numba-", "llvmlite-", "numpy-")))
    found = re.search(r"version ([\d.]+)", said)
    return ", ".join([f"QEMU {found[1] if found else '?'}", f"Python {PYTHON}", *packages])


def main() -> int:
    """Verify each run and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/var/tmp/nbgpt-arm64"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[*RUNS], metavar="RUN")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    options = parser.parse_args()
    register()
    make_debian(options.root)
    install(options.root)
    results, is_other = Results(options.output), False
    inside = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "PYTHONPATH": f"/{SITE}"}
    for name in options.only:
        started = time.perf_counter()
        command = in_debian(options.root, "python3", "-m", "nbgpt", "verify")
        found = verify(command, {**inside, **RUNS[name]}, are_shipped="NUMBA_CPU_NAME" not in RUNS[name])
        results.add("aarch64 by emulation", name, found, time.perf_counter() - started, versions(options.root))
        is_other |= found == OTHER
    print(results.table(), end="")
    return int(is_other)


if __name__ == "__main__":
    sys.exit(main())
