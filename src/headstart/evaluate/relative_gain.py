"""Average relative gain (Ye et al. 2021; paper A, section 4), in its three readings."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

import numpy as np

from headstart.seeds import derive_seed

Reading = Literal["groups", "sets", "templates"]
"""What is averaged last. ``groups``: nine in paper A's code, where ANLI's three rounds are one; ``sets``:
eleven; ``templates``: all 116 alike, as its text says."""

Accuracies = Mapping[tuple[str, str], float]
"""Accuracy by (set, template)."""


def relative_gain(accuracy: float, chance: float) -> float:
    """Return how much better than a guess an accuracy is, in parts of the guess's own.

    Example:
        >>> relative_gain(0.75, 0.5)
        0.5
    """
    return (accuracy - chance) / chance


def average_relative_gain(
    accuracies: Accuracies,
    chances: Accuracies,
    reading: Reading = "groups",
    groups: Mapping[str, str] | None = None,
) -> float:
    """Average relative gains over templates, and over what the reading says.

    Args:
        accuracies: By set and template.
        chances: The accuracy of a guess, likewise.
        reading: What counts alike.
        groups: Set to group, for ``groups``. Default: every set is its own.

    Raises:
        KeyError: A template without a chance.
        ValueError: Nothing to average.

    Example:
        >>> accuracies = {("r1", "a"): 0.5, ("r2", "a"): 1.0, ("cb", "a"): 0.5, ("cb", "b"): 1.0}
        >>> chances = dict.fromkeys(accuracies, 0.5)
        >>> average_relative_gain(accuracies, chances, groups={"r1": "anli", "r2": "anli"})
        0.5
        >>> average_relative_gain(accuracies, chances, "templates")
        0.5
    """
    if not accuracies:
        raise ValueError("no accuracies to average")
    gains: dict[str, list[float]] = {}
    for (name, template), accuracy in accuracies.items():
        unit = {"templates": f"{name}/{template}", "sets": name}.get(reading)
        unit = unit or (groups or {}).get(name, name)
        gains.setdefault(unit, []).append(relative_gain(accuracy, chances[name, template]))
    return fmean(map(fmean, gains.values()))


Rights = Mapping[tuple[str, str], np.ndarray]
"""Which rows were right, by (set, template): [R], of several seeds their mean."""


def resampled(
    rights: Rights, draws: int = 1000, seed: int = 0
) -> list[dict[tuple[str, str], float]]:
    """Draw the test rows of every set again, with replacement: paper A's bootstrap over examples.

    Templates of a set that ask of as many rows ask of the same ones, and so do all methods: their draws are
    paired.

    Args:
        rights: By set and template.
        draws: How often.
        seed: Of the draws.

    Returns:
        The accuracies of each draw.

    Example:
        >>> rights = {("a", "t"): np.array([1.0, 0.0]), ("a", "u"): np.array([0.0, 1.0])}
        >>> {one["a", "t"] + one["a", "u"] for one in resampled(rights, 50)}
        {1.0}
    """
    columns = {}
    for (name, template), right_R in rights.items():
        rows = len(right_R)
        generator = np.random.default_rng(derive_seed(seed, "bootstrap", name, rows))
        index_DR = generator.integers(rows, size=(draws, rows))
        columns[name, template] = np.asarray(right_R, dtype=float)[index_DR].mean(1)
    return [{key: float(values[d]) for key, values in columns.items()} for d in range(draws)]
