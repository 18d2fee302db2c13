"""`cache`: it shows what is kept, and removes what it says it would."""

import os
import time


def test_cache(run, tmp_path, monkeypatch):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path))
    (tmp_path / "kernels").mkdir()
    (tmp_path / "converted").mkdir()
    left = tmp_path / "converted" / ".a-int8.safetensors.0123abcd.partial"
    left.write_bytes(bytes(2_000_000))
    os.utime(left, (then := time.time() - 7200, then))
    fresh = tmp_path / "converted" / "b-int8.safetensors"
    fresh.write_bytes(bytes(1_000_000))
    code, out, err = run("cache")
    assert (code, err) == (0, "")
    assert "partial         2.0 MB     0 days  .a-int8.safetensors.0123abcd.partial (its process was killed)" in out
    assert f"3.0 MB in 2 files of {tmp_path}" in out
    assert "2.0 MB can go: --prune removes it" in out
    assert left.exists()
    code, out, err = run("cache", "--prune")
    assert (code, err, out.splitlines()[-1]) == (0, "", "2.0 MB removed")
    assert (left.exists(), fresh.exists()) == (False, True)
    assert run("cache")[1].endswith("all of it is of use\n")


def test_without_a_home(run, monkeypatch):
    monkeypatch.delenv("NBGPT_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    code, out, err = run("cache")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "set NBGPT_HOME" in err
