import json
import os
import subprocess
import sys

import pytest

from nbgpt import paths
from nbgpt.batch import output as module
from nbgpt.batch.output import Output
from nbgpt.batch.worker import Finished
from nbgpt.formats import FormatError

IDENTITY = {"job": {"task": "generate", "seed": 0}, "model": {"name": "a", "dtype": "int8"}}


def finished(number, lines=b'{"a": 1}\n', errors=b""):
    return Finished(number, lines, errors, 1, errors.count(b"\n"), "", 0, 0)


@pytest.fixture
def output(tmp_path):
    return lambda: Output(tmp_path / "out.jsonl")


def test_shards_become_the_output(output, tmp_path):
    one = output()
    with one.locked():
        assert not one.begin(IDENTITY, range(3))
        one.keep(finished(2, b"2\n"))
        one.keep(finished(0, b"0\n", b"bad\n"))
        one.keep(finished(1, b"", b"worse\nworst\n"))
        assert (one.done, one.n_failed) == ({0, 1, 2}, 3)
        one.join()
    assert (tmp_path / "out.jsonl").read_bytes() == b"0\n2\n"
    assert (tmp_path / "out.errors.jsonl").read_bytes() == b"bad\nworse\nworst\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.errors.jsonl",
        "out.jsonl",
        "out.manifest.json",
    ]
    again = output()
    with again.locked():
        assert again.begin(IDENTITY, range(3))
        assert again.n_failed == 3


def test_a_run_goes_on_from_what_is_finished(output, tmp_path):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(3))
        one.keep(finished(1, errors=b"bad\n"))
    (tmp_path / "out.parts" / ".00000002.jsonl.0123abcd.partial").write_text("half a")
    (tmp_path / ".out.jsonl.0123abcd.partial").write_text("half a")
    again = output()
    (tmp_path / "out.parts" / ".mine.partial").write_text("nobody's")
    with again.locked():
        assert not again.begin(IDENTITY, range(3))
        assert (again.done, again.n_failed) == ({1}, 1)
        assert json.loads((tmp_path / "out.manifest.json").read_text())["progress"]["done"] == 1
    assert [path.name for path in tmp_path.rglob("*.partial")] == [".mine.partial"]


@pytest.mark.parametrize("name", ["out.errors.jsonl", "out.parts/00000001.jsonl", "out.parts/00000001.errors.jsonl"])
def test_what_has_no_manifest_is_nobodys(output, tmp_path, name):
    (tmp_path / "out.parts").mkdir()
    (tmp_path / name).write_text("precious\n")
    one = output()
    with one.locked(), pytest.raises(ValueError, match=f"{name} exists, and has no manifest to go on with: --overw"):
        one.begin(IDENTITY, range(3))
    assert (tmp_path / name).read_text() == "precious\n"
    with one.locked():
        one.clear()
        assert not one.begin(IDENTITY, range(3))
        assert one.done == set()


def test_only_its_own_files_are_removed(output, tmp_path):
    one = output()
    (tmp_path / "out.parts").mkdir()
    (tmp_path / "out.parts" / "mine.jsonl").write_text("precious\n")
    for end in (one.clear, one.join):
        with one.locked():
            one.begin(IDENTITY, range(1))
            one.keep(finished(0))
            end()
        assert [path.name for path in (tmp_path / "out.parts").glob("*.jsonl")] == ["mine.jsonl"]


def test_a_shard_leaves_no_errors_of_a_killed_run(output, tmp_path):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(1))
        (tmp_path / "out.parts" / "00000000.errors.jsonl").write_text("stale\n")
        one.keep(finished(0))
        one.join()
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_clear_that_is_interrupted_leaves_a_manifest(output, tmp_path, monkeypatch):
    one, unlink = output(), module.Path.unlink

    def interrupted(path, **options):
        if path.stem.isdecimal():
            raise KeyboardInterrupt
        unlink(path, **options)

    with one.locked():
        one.begin(IDENTITY, range(2))
        one.keep(finished(0))
        with monkeypatch.context() as patch:
            patch.setattr(module.Path, "unlink", interrupted)
            with pytest.raises(KeyboardInterrupt):
                one.clear()
    assert (tmp_path / "out.manifest.json").exists()


def test_a_run_that_was_killed_just_before_its_end_leaves_no_shards(output, tmp_path, monkeypatch):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(2))
        for number in (0, 1):
            one.keep(finished(number))
        with monkeypatch.context() as patch:
            patch.setattr(one, "_shards", list)
            one.join()
        assert len(one._shards()) == 2
    again = output()
    with again.locked():
        assert again.begin(IDENTITY, range(2))
    assert not (tmp_path / "out.parts").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("job", "seed"), 1, "job.seed 0, and now it is 1"),
        (("model", "dtype"), "int4", "model.dtype 'int8', and now it is 'int4'"),
        (("model", "more"), 1, "model.more none, and now it is 1"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(output, path, value, message):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(3))
        one.keep(finished(1))
    changed = json.loads(json.dumps(IDENTITY))
    changed[path[0]][path[1]] = value
    again = output()
    with again.locked():
        with pytest.raises(ValueError, match=f"was begun with {message}: give the same as then"):
            again.begin(changed, range(3))
        again.clear()
        assert not again.begin(changed, range(3))
        assert again.done == set()


def test_a_file_of_somebody_else_is_not_replaced(output, tmp_path):
    (tmp_path / "out.jsonl").write_text("precious")
    one = output()
    with one.locked(), pytest.raises(ValueError, match="exists, and has no manifest to go on with: --overwrite"):
        one.begin(IDENTITY, range(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


def test_a_finished_output_that_is_gone(output, tmp_path):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(0))
        one.join()
    (tmp_path / "out.jsonl").unlink()
    with one.locked(), pytest.raises(ValueError, match="was finished and is gone: --overwrite makes it again"):
        one.begin(IDENTITY, range(0))


def test_two_runs_never_share_an_output(output):
    with output().locked(), pytest.raises(ValueError, match="another run is writing"), output().locked():
        pass
    with output().locked():
        pass


def test_the_lock_ends_with_its_process(tmp_path):
    code = "import os, sys; from pathlib import Path; from nbgpt.batch.output import Output\n"
    code += f"o = Output(Path({str(tmp_path / 'out.jsonl')!r}))\nwith o.locked(): print(flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another run"), Output(tmp_path / "out.jsonl").locked():
            pass
        process.kill()
        process.wait()
    with Output(tmp_path / "out.jsonl").locked():
        pass


def test_a_full_disk_loses_nothing_that_was_kept(output, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    one = output()
    with one.locked():
        one.begin(IDENTITY, range(2))
        one.keep(finished(0))
        monkeypatch.setattr(paths.os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            one.keep(finished(1))
        assert raised.value.filename == str(tmp_path / "out.parts" / "00000001.jsonl")
    monkeypatch.undo()
    again = output()
    with again.locked():
        again.begin(IDENTITY, range(2))
        assert again.done == {0}
        assert not list(tmp_path.rglob("*.partial"))


def test_names(tmp_path):
    with pytest.raises(ValueError, match=r"the answers are JSON lines: let it end in \.jsonl"):
        Output(tmp_path / "out.csv")
    with pytest.raises(FileNotFoundError):
        Output(tmp_path / "nothing" / "out.jsonl")
    assert Output(tmp_path / "a.b.jsonl").parts == tmp_path / "a.b.parts"


@pytest.mark.parametrize("step", ["_concatenate", "whole_file"])
def test_a_run_that_ends_while_shards_are_joined(output, tmp_path, monkeypatch, step):
    """Before the output has its name, or after and before the manifest says so: it is joined again."""
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(2))
        for number in (0, 1):
            one.keep(finished(number, b"%d\n" % number, b"bad\n" * number))

        def stop(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, step, stop)
        if step == "whole_file":
            monkeypatch.setattr(module, "_concatenate", lambda parts, path: path.write_bytes(b"0\n1\n"))
        with pytest.raises(OSError, match="No space left"):
            one.join()
    monkeypatch.undo()
    again = output()
    with again.locked():
        assert not again.begin(IDENTITY, range(2))
        assert again.done == {0, 1}
        again.join()
    assert (tmp_path / "out.jsonl").read_bytes() == b"0\n1\n"
    assert (tmp_path / "out.errors.jsonl").read_bytes() == b"bad\n"
    assert not (tmp_path / "out.parts").exists()


@pytest.mark.parametrize("progress", [None, [], {}, {"is_complete": True}, {"is_complete": True, "failed": "1"}])
def test_a_manifest_without_its_progress(output, tmp_path, progress):
    one = output()
    with one.locked():
        one.begin(IDENTITY, range(3))
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    (tmp_path / "out.manifest.json").write_text(json.dumps({**manifest, "progress": progress}))
    with one.locked(), pytest.raises(FormatError, match=r"out.manifest.json is damaged: .* --overwrite begins anew"):
        one.begin(IDENTITY, range(3))
