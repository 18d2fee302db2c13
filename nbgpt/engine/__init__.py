"""Token ids in, token ids out: requests, the scheduler that batches them, and the passes that run the model.

May import: sampling, weights, backend, abi.
Start with `scheduler.py`; `model_runner.py` runs one pass, `kv_cache.py` holds its keys and values.
"""
