"""Text in, text out: options, streams of text, completions, sessions.

May import: engine, decoding, sampling, tokenizer.
Start with `stream.py`; `options.py` lists what can be asked for.
"""
