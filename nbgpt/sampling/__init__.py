"""From logits to a token id: parameters, logits processors, structured output, log-probabilities, random numbers.

May import: tokenizer, validation.
Start with `sampler.py`, which applies the others in order; `params.py` declares what a request may ask for.
"""
