"""`warmup`: the object file that it names is there."""

import os


def test_warmup(run, recital):
    code, out, _ = run("warmup", "--dtype", "float32")
    assert (code, out.count("\n")) == (0, 1)
    assert os.path.exists(out.strip())  # noqa: PTH110
