"""How much memory control groups allow, from files as the kernel writes them."""

from pathlib import Path

import pytest

from nbgpt.engine import memory
from nbgpt.engine.memory import KV_SHARE, cgroup_memory, default_kv_memory

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"fs/a/b/memory.max": f"{GIB}\n"}, GIB),
        ({"fs/a/b/memory.max": "max\n"}, float("inf")),
        ({"fs/a/b/memory.max": "max\n", "fs/a/memory.max": f"{2 * GIB}\n"}, 2 * GIB),  # a parent's limit
        ({"fs/a/b/memory.max": f"{3 * GIB}\n", "fs/a/memory.max": f"{2 * GIB}\n"}, 2 * GIB),
        ({"fs/memory.max": f"{GIB}\n"}, GIB),
        ({"fs/other/memory.max": f"{GIB}\n"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_version_2(tmp_path, files, expected):
    root = write(tmp_path, {"cgroup": "0::/a/b\n", **files})
    assert cgroup_memory(root / "fs", root / "cgroup") == expected


V1 = "12:cpu,cpuacct:/x\n4:memory:/a\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V1, {"fs/memory/a/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        (V1, {"fs/memory/memory.limit_in_bytes": f"{GIB}\n"}, GIB),  # within a container, which sees its own root
        (V1, {"fs/memory/a/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 2**63 - 4096),  # no limit
        (V1, {"fs/memory/x/memory.limit_in_bytes": f"{GIB}\n"}, float("inf")),
        ("3:cpu:/a\n", {"fs/memory/a/memory.limit_in_bytes": f"{GIB}\n"}, float("inf")),
    ],
)
def test_version_1(tmp_path, membership, files, expected):
    root = write(tmp_path, {"cgroup": membership, **files})
    assert cgroup_memory(root / "fs", root / "cgroup") == expected


@pytest.mark.parametrize("membership", ["", "nonsense\n", "0::/a\nnonsense"])
def test_files_that_say_nothing(tmp_path, membership):
    root = write(tmp_path, {"cgroup": membership, "fs/a/memory.max": "many\n"})
    assert cgroup_memory(root / "fs", root / "cgroup") == float("inf")
    assert cgroup_memory(root / "fs", root / "nothing") == float("inf")


def test_the_default_is_a_share_of_the_smaller(monkeypatch):
    for physical, group in ((8 * GIB, float("inf")), (8 * GIB, 2 * GIB), (GIB, 2 * GIB)):
        monkeypatch.setattr(memory, "_physical_memory", lambda physical=physical: physical)
        monkeypatch.setattr(memory, "cgroup_memory", lambda group=group: group)
        assert default_kv_memory() == KV_SHARE * min(physical, group)


def test_a_system_that_does_not_say(monkeypatch):
    monkeypatch.setattr(memory, "cgroup_memory", lambda: float("inf"))
    monkeypatch.delattr("os.sysconf")
    assert default_kv_memory() == GIB
