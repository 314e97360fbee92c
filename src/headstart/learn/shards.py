"""Weights that are spread over processes (FSDP2): each has a part of every weight, and all run together.

Prompts stay outside the shards. Since every process takes part in every forward, rows are what is shared:
:class:`~headstart.learn.gradient.StackedLoss` gives each process its rows, and adds up what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from headstart.models.base import BaseModel, Encoded
from headstart.models.processes import own_processes
from headstart.prompts.bank import PromptBank


class _Root(nn.Module):
    """Whatever runs the network runs inside this module's forward, which gathers what all layers share."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.network = model.network
        self._model = [model]  # in a list, so that it is not taken for a part of the network

    def forward(self, bank: Any, *scored: Any) -> Any:
        (model,) = self._model
        if scored:
            rows, prompt_of_row_B = scored
            return model.score(rows, bank, prompt_of_row_B)
        ends: list[Tensor] = []
        hook = layers_of(self.network)[-1].register_forward_hook(
            lambda module, given, out: ends.append(out)
        )
        made = model.prefill(bank)
        hook.remove()
        # FSDP notices a backward pass by the tensors that a module returns; keys and values leave the layers
        # at their side, all but the last of which the next one uses: so what the last returns has a part too
        touched = sum(end.sum() for end in ends) * 0
        stacks = {
            kind: replace(stack, vectors_NPX=stack.vectors_NPX + touched)
            for kind, stack in made.stacks.items()
        }
        return PromptBank(**stacks), [stack.vectors_NPX for stack in stacks.values()]


def layers_of(network: Any) -> list[nn.Module]:
    """Return the network's layers, in the order in which they run.

    Example:
        >>> from headstart.models.load import load_model
        >>> len(layers_of(load_model("tiny-causal").network))
        2
    """
    return [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]


class Sharded:
    """A base model whose weights are spread over all processes.

    Args:
        model: The model whose weights are taken; it is empty until :meth:`gather` gives them back.
    """

    is_sharded = True

    def __init__(self, model: BaseModel) -> None:
        """Spread the weights: layer by layer, and what is left of the network together."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._emptied = model
        weights = list(model.network.parameters())
        network = deepcopy(model.network, {id(weight): weight for weight in weights})
        self._model: Any = type(model)(network, model.tokenizer, model.name, model.choices)  # type: ignore[call-arg]
        _ = self._model.groups  # which takes a forward of the whole
        mesh = init_device_mesh(model.device.type, (own_processes().num_processes,))
        self._root = _Root(self._model)
        for module in (*layers_of(network), self._root):
            spread = fully_shard(module, mesh=mesh)
            spread.set_gradient_divide_factor(1.0)  # a sum, no mean
            spread.set_force_sum_reduction_for_comms(True)
        for weight in weights:
            weight.data = weight.data.new_empty(0)

    def __getattr__(self, name: str) -> Any:
        """Look everything else up in the model itself."""
        return getattr(self._model, name)

    def prefill(self, bank: PromptBank) -> PromptBank:
        """As the model's own; a collective operation."""
        made: PromptBank = self._root(bank)[0]
        return made

    def score(
        self, rows: Sequence[Encoded], bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As the model's own; a collective operation."""
        found: tuple[Tensor, Tensor] = self._root(bank, rows, prompt_of_row_B)
        return found

    def gather(self) -> None:
        """Give the whole weights, as they are now, back to the model they were taken from."""
        pairs = zip(
            self._emptied.network.parameters(), self._model.network.parameters(), strict=True
        )
        for mine, spread in pairs:
            mine.data = whole(spread.detach())


@contextmanager
def sharded(model: BaseModel, wanted: bool) -> Iterator[BaseModel]:
    """Spread a model's weights within the block, where that is wanted and there are several processes.

    Example:
        >>> from headstart.models.load import load_model
        >>> model = load_model("tiny-causal")
        >>> with sharded(model, wanted=True) as same:  # there is one process
        ...     same is model
        True
    """
    if not wanted or own_processes().num_processes == 1:
        yield model
        return
    spread = Sharded(model)
    try:
        yield spread
    finally:
        spread.gather()


def is_sharded(model: BaseModel) -> bool:
    """Say whether a model's weights are spread over processes.

    Example:
        >>> from headstart.models.load import load_model
        >>> is_sharded(load_model("tiny-causal"))
        False
    """
    return getattr(model, "is_sharded", False)


def whole(value: Any) -> Any:
    """Gather what is spread in nested dicts, lists and tuples; a collective operation.

    Example:
        >>> import torch
        >>> whole({"a": [1, torch.ones(1)]})
        {'a': [1, tensor([1.])]}
    """
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(inner) for inner in value)
    return value


def spread_as(value: Any, weight: Tensor) -> Any:
    """Spread tensors that belong to a weight as that is spread: such of its shape alike, others whole.

    Example:
        >>> import torch
        >>> spread_as((1, torch.ones(1)), torch.ones(1))
        (1, tensor([1.]))
    """
    if isinstance(value, dict):
        return {key: spread_as(inner, weight) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(spread_as(inner, weight) for inner in value)
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.dim() == 0:
        return value
    alike = value.shape == weight.shape
    places = weight.placements if alike else [Replicate()] * weight.device_mesh.ndim
    return distribute_tensor(value.to(weight.device), weight.device_mesh, places)


def settled(value: Any) -> Any:
    """Have every process hold all of small tensors that hang on spread ones; a collective operation.

    Where a moment of a gradient lies then no longer hangs on how it was computed, so that a run that goes on
    from a saved one adds up in the same order.

    Example:
        >>> import torch
        >>> settled((1, torch.ones(1)))
        (1, tensor([1.]))
    """
    if isinstance(value, DTensor):
        return value.redistribute(placements=[Replicate()] * value.device_mesh.ndim)
    if isinstance(value, list | tuple):
        return type(value)(settled(inner) for inner in value)
    return value
