"""Labelled texts: what may stand in a data set, and the division into texts to train and to validate with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from ..rows import column, read_rows

Label = str | int | bool
Say = Callable[[str], object]
"""Called with a sentence that the user should read."""


@dataclass(frozen=True)
class Examples:
    """Texts with their labels by number."""

    texts: list[str]
    targets: np.ndarray  # int64 [n], numbers of labels; for multi-label data bool [n, n_labels]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: np.ndarray) -> Examples:
        """Some of them, by their numbers."""
        return Examples([self.texts[row] for row in rows], self.targets[rows])


@dataclass(frozen=True)
class DataSet:
    """What a classifier is trained on, and what it is then measured on."""

    labels: tuple[str, ...]  # sorted
    training: Examples
    validation: Examples

    @property
    def multi_label(self) -> bool:
        return self.training.targets.ndim == 2

    def counts(self, examples: Examples) -> np.ndarray:
        """Texts of each label, int64 [n_labels]."""
        if self.multi_label:
            found: np.ndarray = examples.targets.sum(axis=0)
            return found
        return np.bincount(examples.targets, minlength=len(self.labels))


def read_examples(
    path: str | Path, text_column: str = "text", label_column: str = "label"
) -> tuple[list[Any], list[Any]]:
    """Texts and labels of a table. Raises as `read_rows`, and ValueError for a missing column."""
    rows = read_rows(path)
    return column(rows, text_column), column(rows, label_column)


def divide(
    texts: Iterable[Any],
    labels: Iterable[Any],
    validation: float | tuple[Iterable[Any], Iterable[Any]] = 0.2,
    seed: int = 0,
    say: Say = lambda note: None,
) -> DataSet:
    """The data set of some texts.

    Texts without words or without a label are left out, as are labels of a single text. What is in the training texts
    already, apart from spaces and case, is left out of the validation texts. Each of these is said, with its number.

    Args:
        texts: to train on.
        labels: a label for each text, or a list of labels for each.
        validation: the share of texts to validate with, drawn so that every label keeps its share; or texts and labels.
        seed: of the draw.
        say: called with what was done to the data.

    Raises:
        ValueError: there is nothing to train on or to validate with, or a text or a label is of another type.
    """
    kept, sets = _cleaned(texts, labels, say)
    multi_label = isinstance(next(iter(sets), ""), tuple)
    kept, sets, names = _with_frequent_labels(kept, sets, multi_label, say)
    if isinstance(validation, tuple):
        training = Examples(kept, _targets(sets, names, multi_label))
        other_texts, other_sets = _cleaned(*validation, say)
        examples = Examples(other_texts, _targets(other_sets, names, multi_label))
    else:
        everything = Examples(kept, _targets(sets, names, multi_label))
        to_train, to_validate = _draw(everything, len(names), validation, seed)
        training, examples = everything[to_train], everything[to_validate]
    data = DataSet(names, training, _without_known(training, examples, say))
    _say_sizes(data, say)
    return data


def _cleaned(texts: Iterable[Any], labels: Iterable[Any], say: Say) -> tuple[list[str], list[Any]]:
    """The usable texts with their labels as text: a str each, or a tuple of them. Raises ValueError."""
    texts, labels = list(texts), list(labels)
    if len(texts) != len(labels):
        raise ValueError(f"there are {len(texts)} texts and {len(labels)} labels; give one for each")
    kept, sets = list[str](), list[Any]()
    n_empty = n_unlabelled = 0
    for row, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text {row} is {text!r:.60}; it must be a text")
        if not (text or "").strip():
            n_empty += 1
        elif label is None or label == "":
            n_unlabelled += 1
        else:
            kept.append(str(text))
            sets.append(_label(label, row))
    if {isinstance(label, tuple) for label in sets} == {True, False}:
        raise ValueError("some labels are lists and others are not: make all of them lists, or none")
    if n_empty:
        say(f"{_texts(n_empty)} left out: empty")
    if n_unlabelled:
        say(f"{_texts(n_unlabelled)} left out: without a label")
    return kept, sets


def _label(label: Any, row: int) -> str | tuple[str, ...]:
    if isinstance(label, (list, tuple, set, frozenset, np.ndarray)):
        return tuple(sorted({_name(one, row) for one in label}))
    return _name(label, row)


def _name(label: Any, row: int) -> str:
    if isinstance(label, (bool, np.bool_)):
        return "true" if label else "false"
    if not isinstance(label, (str, Integral)) or label == "":
        raise ValueError(f"label {row} is {label!r:.60}; it must be a text or a whole number, or a list of these")
    return str(label)


def _with_frequent_labels(
    texts: list[str], sets: list[Any], multi_label: bool, say: Say
) -> tuple[list[str], list[Any], tuple[str, ...]]:
    """Without labels that a single text has, which cannot be trained and validated too. Raises ValueError."""
    counts = Counter(name for one in sets for name in (one if multi_label else (one,)))
    rare = sorted(name for name, n in counts.items() if n < 2 or (multi_label and n > len(sets) - 2))
    if rare:
        why = "fewer than two texts have it, or fewer than two lack it" if multi_label else "a single text has it"
        say(f"{_labels(rare)} left out: {why}")
    names = tuple(sorted(counts.keys() - set(rare)))
    if multi_label:
        sets = [tuple(name for name in one if name in names) for one in sets]
    else:
        texts, sets = (
            [text for text, one in zip(texts, sets, strict=True) if one in names],
            [one for one in sets if one in names],
        )
    if len(names) < 2:
        found = f"one label, {names[0]!r:.60}" if names else "none"
        raise ValueError(
            f"a classifier needs at least two labels with two texts each; found {found} in {_texts(len(sets))}"
        )
    return texts, sets, names


def _targets(sets: list[Any], names: tuple[str, ...], multi_label: bool) -> np.ndarray:
    """Labels by number: int64 [n], or bool [n, n_labels]. Raises ValueError for a label that is not among the names."""
    number = {name: i for i, name in enumerate(names)}
    given = {name for one in sets for name in (one if isinstance(one, tuple) else (one,))}
    if unknown := sorted(given - number.keys()):
        raise ValueError(f"the texts to validate with have {_labels(unknown)}, which the texts to train on have not")
    if any(isinstance(one, tuple) != multi_label for one in sets):
        raise ValueError("labels are lists in the texts to train on or in those to validate with, and not in both")
    if not multi_label:
        return np.array([number[one] for one in sets], np.int64)
    targets = np.zeros((len(sets), len(names)), bool)
    for row, one in enumerate(sets):
        targets[row, [number[name] for name in one]] = True
    return targets


def _draw(examples: Examples, n_labels: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of texts to train on and to validate with. Raises ValueError if there are too few."""
    from sklearn.model_selection import train_test_split

    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"validation is {share!r:.60}; it must be above 0 and below 1, or texts and labels")
    n = len(examples)
    n_validation = max(round(share * n), n_labels)
    if n - n_validation < n_labels:
        raise ValueError(f"{_texts(n)} of {n_labels} labels are too few to train on some and validate with others")
    stratify = None if examples.targets.ndim == 2 else examples.targets
    training, validation = train_test_split(np.arange(n), test_size=n_validation, stratify=stratify, random_state=seed)
    return np.sort(training), np.sort(validation)


def _without_known(training: Examples, validation: Examples, say: Say) -> Examples:
    """The validation texts without those that stand among the training texts. Raises ValueError if none is left."""
    known = set(map(_normal, training.texts))
    unknown = np.array([row for row, text in enumerate(validation.texts) if _normal(text) not in known], np.int64)
    if n := len(validation) - len(unknown):
        say(f"{_texts(n)} left out of validation: in training too")
    if not len(unknown):
        raise ValueError("no text is left to validate with: all of them are among those to train on")
    return validation[unknown]


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _say_sizes(data: DataSet, say: Say) -> None:
    """Say that labels differ much in their number of texts, and that texts have several labels."""
    counts = data.counts(data.training)
    if counts.max() >= 4 * counts.min():
        rarest, commonest = data.labels[counts.argmin()], data.labels[counts.argmax()]
        say(
            f"labels of unequal size, from {counts.min()} texts ({rarest:.40}) to {counts.max()} ({commonest:.40}): "
            "probabilities keep these sizes, macro F1 counts each label alike"
        )
    if not data.multi_label:
        by_text: dict[str, set[int]] = {}
        for text, target in zip(data.training.texts, data.training.targets.tolist(), strict=True):
            by_text.setdefault(_normal(text), set()).add(target)
        if n := sum(len(targets) > 1 for targets in by_text.values()):
            say(f"{_texts(n)} in training under several labels, as they are given")


def _texts(n: int) -> str:
    return f"{n} text" + "s" * (n != 1)


def _labels(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r:.40}" for name in names[:3])
    return f"label{'s' * (len(names) > 1)} {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
