"""What machine this is, and whether it is ours alone. Linux only."""

import os
import platform
import time
from pathlib import Path

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm")


def machine() -> dict[str, str]:
    """The processor, the memory and the system, as Linux names them."""
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    cpu = {name.strip(): value.strip() for name, value in cpu.items()}
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    kib = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")).split()[
        1
    ]
    family = f"family {cpu['cpu family']} model {cpu['model']}" if "cpu family" in cpu else platform.machine()
    return {
        "processor": f"{cpu.get('model name', 'unknown')} ({family})",
        "instructions": ", ".join(name for name in INSTRUCTIONS if name in flags),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(kib) / 2**20:.1f} GiB",
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        "virtual": "yes" if "hypervisor" in flags else "no",
        "Python": platform.python_version(),
    }


def busy(seconds: float = 1.0) -> float:
    """The share of the processors' time that others use, the host included, while the engines are stopped (proc(5))."""
    idle, total = _times()
    time.sleep(seconds)
    idle_then, total_then = _times()
    return 1 - (idle_then - idle) / max(total_then - total, 1)


def _times() -> tuple[int, int]:
    """Ticks so far: idle (or waiting for a disk), all."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
