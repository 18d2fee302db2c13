"""Classifiers trained on frozen hidden states: data, the head's fit, how good it is, the report, the export.

May import: the other modules of tasks and what is below them; scikit-learn inside functions.
Start with `train.py`.
"""
