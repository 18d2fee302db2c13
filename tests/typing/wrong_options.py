"""Wrong options, each of which a type checker must refuse in a line or two: see test_user_script.py."""

import nbgpt

model = nbgpt.load()
model.generate("The sea", max_token=8)
model.generate("The sea", temperature="hot")
model.stream("The sea", overflow="left")
nbgpt.Prompt("The sea", tempratur=1.0)
nbgpt.load(kv_dtype="float8")
model.embed(["The sea"], "max")
