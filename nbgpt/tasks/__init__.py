"""What a language model is used for besides writing: scores, embeddings, labels, zero-shot prompts.

May import: text, engine, tokenizer.
Start with `scoring.py`.
"""
