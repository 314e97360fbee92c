"""What is trained of a prompt: its coordinates themselves, or a small network that makes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Direct(nn.Module):
    """The coordinates themselves.

    Example:
        >>> Direct(torch.ones(2, 3))().sum().item()
        6.0
    """

    def __init__(self, start_PX: Tensor) -> None:
        """Begin at a start."""
        super().__init__()
        self.coordinates_PX = nn.Parameter(start_PX.clone())

    def forward(self) -> Tensor:
        """Return the coordinates [P, X]."""
        return self.coordinates_PX


class Reparameterised(nn.Module):
    """An embedding a vector, one hidden layer over all of them: ``start + W tanh(V e)`` (Li and Liang 2021).

    ``W`` begins at zero, so that the prompt begins at its start; what is saved is the coordinates.

    Example:
        >>> prompt = Reparameterised(torch.ones(2, 3), 8, torch.Generator().manual_seed(0))
        >>> prompt().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, start_PX: Tensor, units: int, generator: torch.Generator) -> None:
        """Begin at a start, with drawn embeddings and a drawn hidden layer."""
        super().__init__()
        P, X = start_PX.shape
        self.start_PX = start_PX.clone()

        def drawn(*shape: int, scale: float = 1.0) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator) * scale
            return nn.Parameter(values.to(start_PX))

        self.embedding_PU = drawn(P, units)
        self.inner_UU = drawn(units, units, scale=units**-0.5)
        self.outer_UX = nn.Parameter(start_PX.new_zeros(units, X))

    def forward(self) -> Tensor:
        """Return the coordinates [P, X]."""
        return self.start_PX + torch.tanh(self.embedding_PU @ self.inner_UU) @ self.outer_UX
