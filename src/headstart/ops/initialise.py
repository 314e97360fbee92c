"""Initialisers of soft prompts: closures ``(prompt_length, generator) -> prompt_PH`` in float32.

A closure is made from what the model knows (its embedding table, an embedded text) and called once
per prompt, so that each seed draws its own start. See ``ops.shapes`` for the letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Initialiser = Callable[[int, torch.Generator], Tensor]
"""A function of (prompt length P, generator) that returns a prompt [P, H] in float32."""


def root_mean_square(values: Tensor) -> float:
    """Return the root mean square over all coordinates: the scale prompts are matched to.

    Example:
        >>> root_mean_square(torch.tensor([3.0, -4.0, 0.0, 0.0]))
        2.5
    """
    return float(values.float().square().mean().sqrt())


def from_vocabulary(table_VH: Tensor, most_frequent: int | None = None) -> Initialiser:
    """Sample rows of the embedding table without replacement (paper A samples the first 5,000).

    Args:
        table_VH: The model's input embeddings [V, H].
        most_frequent: Sample from the first rows only; byte-pair vocabularies list frequent tokens first.
            Default: the whole table.

    Example:
        >>> from_vocabulary(torch.eye(4))(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 4])
    """
    size = min(most_frequent or len(table_VH), len(table_VH))

    def initialise(prompt_length: int, generator: torch.Generator) -> Tensor:
        rounds = max(1, -(-prompt_length // size))
        rows = torch.cat([torch.randperm(size, generator=generator) for _ in range(rounds)])
        return table_VH[rows[:prompt_length]].float().clone()

    return initialise


def from_embedded(text_TH: Tensor) -> Initialiser:
    """Start from an embedded text: its first P vectors, or the text repeated until P is full.

    Example:
        >>> from_embedded(torch.eye(2))(3, torch.Generator()).argmax(-1).tolist()
        [0, 1, 0]
    """

    def initialise(prompt_length: int, generator: torch.Generator) -> Tensor:
        rows = torch.arange(prompt_length) % len(text_TH)
        return text_TH[rows].float().clone()

    return initialise


def from_class_words(words_TH: Sequence[Tensor], filler: Initialiser) -> Initialiser:
    """Start from the label words, one mean vector a word at the end of the prompt, the rest from ``filler``.

    Lester et al. 2021, section 3.2 ("class label"): a word of several tokens is averaged, and what
    the words leave free is filled by another initialiser, as they do with sampled vocabulary.

    Example:
        >>> words = [torch.ones(2, 3), torch.zeros(1, 3)]
        >>> from_class_words(words, zero(3))(4, torch.Generator()).sum(-1).tolist()
        [0.0, 0.0, 3.0, 0.0]
    """
    means_TH = torch.stack([word.float().mean(0) for word in words_TH])

    def initialise(prompt_length: int, generator: torch.Generator) -> Tensor:
        kept_TH = means_TH[:prompt_length]
        return torch.cat([filler(prompt_length - len(kept_TH), generator), kept_TH])

    return initialise


def normal(hidden_size: int, scale: float | Tensor) -> Initialiser:
    """Draw every coordinate from a normal distribution with standard deviation ``scale`` (one, or [X]).

    Example:
        >>> normal(8, 0.1)(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 8])
    """
    return lambda prompt_length, generator: (
        torch.randn(prompt_length, hidden_size, generator=generator) * scale
    )


def uniform(hidden_size: int, scale: float | Tensor) -> Initialiser:
    """Draw every coordinate evenly around zero with root mean square ``scale`` (one, or [X]).

    Example:
        >>> bool(uniform(8, 1.0)(2, torch.Generator()).abs().max() <= 3 ** 0.5)
        True
    """
    width = scale * 3**0.5
    return lambda prompt_length, generator: (
        (torch.rand(prompt_length, hidden_size, generator=generator) * 2 - 1) * width
    )


def zero(hidden_size: int) -> Initialiser:
    """Start from nothing: all zeros.

    Example:
        >>> zero(4)(2, torch.Generator()).abs().sum().item()
        0.0
    """
    return lambda prompt_length, generator: torch.zeros(prompt_length, hidden_size)


def from_prompt(prompt_PH: Tensor) -> Initialiser:
    """Start from another prompt of the same length.

    Raises:
        ValueError: The prompt asked for has another length.

    Example:
        >>> from_prompt(torch.ones(2, 3))(2, torch.Generator()).sum().item()
        6.0
    """

    def initialise(prompt_length: int, generator: torch.Generator) -> Tensor:
        if prompt_length != len(prompt_PH):
            raise ValueError(
                f"the starting prompt has {len(prompt_PH)} vectors, {prompt_length} were asked for"
            )
        return prompt_PH.float().clone()

    return initialise


def in_every_layer(shallow: Initialiser, deepen: Callable[[Tensor, Tensor], Tensor]) -> Initialiser:
    """Start with the keys and values that a shallow start has in every layer.

    Args:
        shallow: The start beside the text.
        deepen: Prompts [N, P, H] and their mask [N, P] to keys and values [N, P, X].

    Example:
        >>> twice = lambda prompts, mask: torch.cat([prompts, prompts], -1)
        >>> in_every_layer(zero(3), twice)(2, torch.Generator()).shape
        torch.Size([2, 6])
    """

    def initialise(prompt_length: int, generator: torch.Generator) -> Tensor:
        prompt_1PH = shallow(prompt_length, generator)[None]
        with torch.no_grad():
            return deepen(prompt_1PH, torch.ones(1, prompt_length).bool())[0].float().cpu()

    return initialise


def behind_a_gate(start: Initialiser, is_key_X: Tensor) -> Initialiser:
    """Keep a start's keys and set its values to zero: added to an attention, it is nothing yet.

    Example:
        >>> ones = from_prompt(torch.ones(1, 3))
        >>> behind_a_gate(ones, torch.tensor([True, True, False]))(1, torch.Generator()).tolist()
        [[1.0, 1.0, 0.0]]
    """
    return lambda prompt_length, generator: start(prompt_length, generator) * is_key_X.cpu()
