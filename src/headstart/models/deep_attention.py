"""Prompts of keys and values in every layer, through the attention interface of transformers.

Every attention module of a network has a place in a prompt's vector. A forward is told its rows' prompts
(the keyword ``prompts``, which transformers hands down to the attention function); each attention
module then finds its own keys and values and

- *deep*: puts them before those of the text, always visible, with no position (Li and Liang 2021;
  paper A's "deep" prompts);
- *gated*: attends to them apart and adds the result, which is nothing where the values are zero (after
  Zhang et al. 2023, LLaMA-Adapter, whose gate the values take over).

The kernel underneath, plain or fused, is the network's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from headstart.config import GROUPS, Group
from headstart.errors import ModelError
from headstart.ops.attach import additive
from headstart.prompts.bank import Stack

PREFIX = "headstart_"
KERNELS = ("eager", "sdpa")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attention module's keys and values stand in a prompt's vector of size X.

    Attributes:
        group: Which kind of attention it is, an index into ``GROUPS``.
        start: The first number of its keys; its values follow them.
        heads: Key/value heads; keys and values may differ in size (``key_size``, ``value_size``).

    Example:
        >>> place = Place(group=1, start=10, heads=2, key_size=3, value_size=3)
        >>> place.end
        22
    """

    group: int
    start: int
    heads: int
    key_size: int
    value_size: int

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers its keys take, and its values."""
        return self.heads * self.key_size, self.heads * self.value_size

    @property
    def end(self) -> int:
        """One past the last number of its values."""
        return self.start + sum(self.sizes)


Places = Mapping[Any, Place]
"""Every attention module's place, in the order of their numbers."""


def cut(vectors_BPX: Tensor, places: Places) -> dict[Any, tuple[Tensor, Tensor]]:
    """Cut vectors into every module's keys and values [B, heads, P, D].

    Example:
        >>> parts = cut(torch.arange(5.0)[None, None], {"a": Place(0, 0, 1, 2, 3)})
        >>> [part.flatten().tolist() for part in parts["a"]]
        [[0.0, 1.0], [2.0, 3.0, 4.0]]
    """
    sizes = [size for place in places.values() for size in place.sizes]
    flat = iter(vectors_BPX.split(sizes, dim=-1))  # one split: its gradient is one operation
    return {
        module: (
            next(flat).unflatten(-1, (place.heads, -1)).transpose(1, 2),
            next(flat).unflatten(-1, (place.heads, -1)).transpose(1, 2),
        )
        for module, place in places.items()
    }


class Recorder:
    """What a forward's text itself brings to every layer; stands where a forward's prompts would.

    No dataclass, as FSDP2 would hand a copy of one to every layer.

    Args:
        seen: Every attention module's keys and values [B, heads, T, D], in the order in which they ran.

    Example:
        >>> Recorder().seen
        {}
    """

    def __init__(self, seen: dict[Any, tuple[Tensor, Tensor]] | None = None) -> None:
        """Hold what was seen; a forward adds to it."""
        self.seen = {} if seen is None else seen

    def places(self, group_of: Callable[[Any], Group]) -> dict[Any, Place]:
        """Give every module its place, one after the other.

        Example:
            >>> part = torch.zeros(1, 2, 1, 3)
            >>> places = Recorder({"a": (part, part), "b": (part, part)}).places(lambda module: "cross")
            >>> places["b"].start, places["b"].group
            (12, 2)
        """
        places: dict[Any, Place] = {}
        start = 0
        for module, (keys, values) in self.seen.items():
            group = GROUPS.index(group_of(module))
            places[module] = Place(group, start, keys.shape[1], keys.shape[3], values.shape[3])
            start = places[module].end
        return places

    def vectors(self) -> Tensor:
        """Put all keys and values side by side [B, T, X], as :func:`cut` takes them apart.

        Example:
            >>> part = torch.zeros(1, 2, 5, 3)
            >>> Recorder({"a": (part, part)}).vectors().shape
            torch.Size([1, 5, 12])
        """
        parts = [part for pair in self.seen.values() for part in pair]
        return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=-1)


class LayerPrompts:
    """The keys and values that the B rows of a forward bring to every layer.

    No dataclass, as FSDP2 would hand a copy of one to every layer.

    Args:
        places: Where each module finds its own.
        deep: The rows' deep prompts, gathered.
        gated: Their gated prompts.

    Attributes:
        masks: Attention masks and what they are with the prompts' columns: layers share them.

    Example:
        >>> LayerPrompts({}, None, None).deep is None
        True
    """

    def __init__(self, places: Places, deep: Stack | None, gated: Stack | None) -> None:
        """Hold the prompts; they are cut apart when a module first asks."""
        self.places, self.deep, self.gated = places, deep, gated
        self.masks: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = {}

    @cached_property
    def deep_parts(self) -> dict[Any, tuple[Tensor, Tensor]]:
        """Every module's deep keys and values."""
        return cut(self.deep.vectors_NPX, self.places) if self.deep else {}

    @cached_property
    def gated_parts(self) -> dict[Any, tuple[Tensor, Tensor]]:
        """Every module's gated keys and values."""
        return cut(self.gated.vectors_NPX, self.places) if self.gated else {}

    @property
    def positions(self) -> Tensor:
        """Positions that each row's prompt takes before its text [B, 1]: a deep one as many as vectors."""
        if self.deep is not None:
            return self.deep.mask_NP.sum(-1, keepdim=True)
        assert self.gated is not None
        return self.gated.mask_NP.new_zeros(len(self.gated.mask_NP), 1, dtype=torch.long)

    def take(self, index_M: Tensor) -> LayerPrompts:
        """Gather rows, e.g. one a candidate."""
        deep, gated = (
            None if stack is None else stack.take(index_M) for stack in (self.deep, self.gated)
        )
        return LayerPrompts(self.places, deep, gated)


def install(network: Any) -> None:
    """Let a network's attention look for prompts first; its kernel stays what it was.

    Raises:
        ModelError: Its kernel is one whose masks cannot be widened.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    kernel = str(network.config._attn_implementation)
    if kernel.startswith(PREFIX):
        return
    if kernel not in KERNELS:
        raise ModelError(
            f"prompts need eager or sdpa attention, not {kernel}; load the model with one"
        )
    AttentionInterface.register(PREFIX + kernel, partial(_attend, kernel))
    AttentionMaskInterface.register(PREFIX + kernel, AttentionMaskInterface()[kernel])
    network.set_attn_implementation(PREFIX + kernel)


_GENERATING: ContextVar[LayerPrompts | None] = ContextVar("prompts of a generation", default=None)


@contextmanager
def generating(prompts: LayerPrompts | None) -> Iterator[None]:
    """Give every forward of a generation the same rows' prompts: ``generate`` passes no keyword on.

    Example:
        >>> with generating(None):
        ...     pass
    """
    token = _GENERATING.set(prompts)
    try:
        yield
    finally:
        _GENERATING.reset(token)


def _attend(
    kernel: str,
    module: Any,
    query_BhQD: Tensor,
    key_BhKD: Tensor,
    value_BhKD: Tensor,
    mask: Tensor | None,
    prompts: LayerPrompts | Recorder | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as the kernel does, to the text and to the prompts of this module."""
    attend = _kernel(kernel, module)
    if isinstance(prompts, Recorder):
        prompts.seen[module] = (key_BhKD, value_BhKD)
        prompts = None
    else:
        prompts = prompts or _GENERATING.get()
    place = prompts.places.get(module) if prompts else None
    if prompts is not None and place is not None and prompts.deep is not None:
        keys, values, real_BP = _of_rows(
            prompts.deep, prompts.deep_parts[module], place.group, query_BhQD
        )
        known = prompts.masks.get((id(mask), place.group))
        if known is None:
            known = mask, _widened(mask, real_BP, key_BhKD.shape[2], query_BhQD, module)
            if mask is not None:  # kept, so that no other mask can have its id
                prompts.masks[id(mask), place.group] = known
        mask = known[1]
        key_BhKD = torch.cat([keys, key_BhKD], dim=2)
        value_BhKD = torch.cat([values, value_BhKD], dim=2)
        if position_bias is not None:  # a prompt has no position
            position_bias = torch.nn.functional.pad(position_bias, (real_BP.shape[1], 0))
    biased = others if position_bias is None else others | {"position_bias": position_bias}
    out, weights = attend(module, query_BhQD, key_BhKD, value_BhKD, mask, **biased)
    if prompts is not None and place is not None and prompts.gated is not None:
        keys, values, real_BP = _of_rows(
            prompts.gated, prompts.gated_parts[module], place.group, query_BhQD
        )
        visible = additive(real_BP[:, None, None].expand(-1, 1, query_BhQD.shape[2], -1), out.dtype)
        apart, _ = attend(module, query_BhQD, keys, values, visible, **others)
        out = out + apart * real_BP.any(-1)[:, None, None, None]
    return out, weights


def _of_rows(
    stack: Stack, pair: tuple[Tensor, Tensor], group: int, query_BhQD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys and values [B, h, P, D] and what is real [B, P]; the beams of a row share them."""
    keys, values = (part.to(query_BhQD) for part in pair)
    real_BP = stack.mask_NP
    if stack.on_NG is not None:
        real_BP = real_BP & stack.on_NG[:, group, None]
    beams = len(query_BhQD) // len(keys)
    if beams > 1:
        keys, values, real_BP = (
            part.repeat_interleave(beams, 0) for part in (keys, values, real_BP)
        )
    return keys, values, real_BP.to(query_BhQD.device)


def _widened(
    mask: Tensor | None, real_BP: Tensor, K: int, query_BhQD: Tensor, module: Any
) -> Tensor:
    """Put the prompt's columns before the text's, in the form of mask that the kernel was given."""
    Q = query_BhQD.shape[2]
    if mask is None:
        seen_QK = torch.ones(Q, K, dtype=torch.bool, device=real_BP.device)
        mask = seen_QK.tril(K - Q)[None, None] if module.is_causal else seen_QK[None, None]
    columns = real_BP[:, None, None]
    columns = columns if mask.dtype == torch.bool else additive(columns, mask.dtype)
    B, rows = len(real_BP), mask.shape[2]
    return torch.cat([columns.expand(B, 1, rows, -1), mask.expand(B, 1, rows, -1)], dim=-1)


def _kernel(kernel: str, module: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    if kernel == "eager":  # every model of transformers has its own
        found = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    else:
        from transformers import AttentionInterface

        found = AttentionInterface()[kernel]
    attention: Callable[..., tuple[Tensor, Tensor | None]] = found
    return attention
