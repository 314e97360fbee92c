"""Where a prompt's numbers live while they are trained: its kind, and the units it is measured in.

A shallow prompt is trained as it is: all its coordinates are embeddings, of one size. The keys and values
of a network differ in size by layer (in SmolLM2-135M from 0.04 to 2), so a prompt of them is trained in
units of its layer's own: an optimiser that steps alike in every coordinate then fits all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from headstart.config import GROUPS, Group, PromptKind
from headstart.models.base import BaseModel
from headstart.ops.initialise import root_mean_square
from headstart.prompts.bank import PromptBank, Stack


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A kind of prompt and its units; ``coordinates`` are what is trained, ``vectors`` what is used.

    Attributes:
        kind: Of the prompts.
        groups: Where a deep or gated prompt speaks.
        unit_X: The usual size of every coordinate; ``None``: coordinates are the vectors themselves.

    Example:
        >>> import torch
        >>> space = Space("deep", unit_X=torch.tensor([2.0, 0.5]))
        >>> space.vectors(space.coordinates(torch.ones(1, 2))).tolist()
        [[1.0, 1.0]]
    """

    kind: PromptKind = "shallow"
    groups: tuple[Group, ...] = GROUPS
    unit_X: Tensor | None = None

    def coordinates(self, vectors_PX: Tensor) -> Tensor:
        """Measure vectors in the space's units."""
        return vectors_PX if self.unit_X is None else vectors_PX / self.unit_X.to(vectors_PX)

    def vectors(self, coordinates_PX: Tensor) -> Tensor:
        """Return the vectors that coordinates stand for; gradients go through."""
        if self.unit_X is None:
            return coordinates_PX
        return coordinates_PX * self.unit_X.to(coordinates_PX)

    def bank(self, coordinates_NPX: Tensor, mask_NP: Tensor | None = None) -> PromptBank:
        """Make a bank of N prompts; without a mask every slot is real.

        Example:
            >>> import torch
            >>> Space("gated", ("cross",)).bank(torch.ones(1, 2, 4)).gated.on_NG.tolist()
            [[False, False, True]]
        """
        if mask_NP is None:
            mask_NP = coordinates_NPX.new_ones(coordinates_NPX.shape[:2]).bool()
        stack = Stack.of(self.vectors(coordinates_NPX), mask_NP, self.groups)
        return PromptBank(**{self.kind: stack})


SHALLOW = Space()
"""Vectors beside the text, as they are."""


def space_of(
    model: BaseModel,
    kind: PromptKind,
    groups: tuple[Group, ...] = GROUPS,
    in_units: bool = True,
) -> Space:
    """Return the space of a kind of prompt under a model.

    Args:
        model: The base model.
        kind: Of the prompts.
        groups: Where a deep or gated prompt speaks.
        in_units: Whether keys and values are measured in their layer's units; not where a step size was
            given in plain numbers.

    Example:
        >>> from headstart.models.load import load_model
        >>> space_of(load_model("tiny-causal"), "deep").unit_X.shape
        torch.Size([32])
    """
    return Space(kind, groups, model.deep_unit_X if in_units and kind != "shallow" else None)


def usual_size(model: BaseModel, space: Space) -> float:
    """Return the size of a usual coordinate: 1 in units, else the embeddings' root mean square.

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> usual_size(load_model("tiny-causal"), Space("deep", unit_X=torch.ones(32)))
        1.0
    """
    return 1.0 if space.unit_X is not None else root_mean_square(model.embedding_VH.detach())
