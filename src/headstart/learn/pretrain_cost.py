"""What continued pretraining will take, counted before it begins: memory of one device, and work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.shards import layers_of
from headstart.models.batches import SLOTS

GIB = 2**30
KEPT_A_LAYER = 34
"""Bytes that a layer keeps for its backward pass, for each slot and each of H numbers, in 16 bits
(Korthikanti et al. 2022, section 4.1, without what attention keeps)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the cost of a network hangs on.

    Attributes:
        weights: Numbers of it.
        adapters: Numbers of adapters of rank 1 on all its linear layers.
        layers: Its layers.
        hidden: H.
        vocabulary: V.

    Example:
        >>> Shape(8, 0, 1, 2, 4).weights
        8
    """

    weights: int
    adapters: int
    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def of(cls, network: Any) -> Shape:
        """Measure a network, which may be one without numbers (on the device ``meta``).

        Example:
            >>> from headstart.models.tiny import tiny_causal
            >>> Shape.of(tiny_causal()[0]).layers
            2
        """
        import torch

        table_VH = network.get_input_embeddings().weight
        head = network.get_output_embeddings()
        linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        return cls(
            weights=sum(weight.numel() for weight in network.parameters()),
            adapters=sum(m.in_features + m.out_features for m in linear),
            layers=len(layers_of(network)),
            hidden=table_VH.shape[1],
            vocabulary=table_VH.shape[0],
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run takes.

    Attributes:
        memory: Bytes on each device: weights, gradients, optimiser, and what one forward keeps.
        work: Floating-point operations of one update, over all devices.

    Example:
        >>> Cost(2**30, 1e12).told(1e12, 10)
        'about 1 GiB on each device, 1 TFLOP an update; 10 updates in about 20 s here'
    """

    memory: float
    work: float

    def told(self, rate: float, updates: int, used: float = 0.5) -> str:
        """Put it in words, at a rate of matrix products in operations a second, of which a part is used."""
        seconds = updates * self.work / (rate * used)
        unit, size = next(each for each in UNITS if seconds >= 2 * each[1] or each == UNITS[-1])
        return (
            f"about {self.memory / GIB:.2g} GiB on each device, {self.work / 1e12:.2g} TFLOP an update; "
            f"{updates} updates in about {seconds / size:.2g} {unit} here"
        )


UNITS = (("days", 86_400), ("hours", 3600), ("min", 60), ("s", 1))


def cost_of(shape: Shape, settings: Pretrain, source: float, target: float, devices: int) -> Cost:
    """Count memory and work of an update.

    Every number takes part in a product and a sum for each token (2 operations), twice as many more in the
    backward pass; an inner step needs no gradient of the weights, which saves a third.

    Args:
        shape: The network's.
        settings: The run's.
        source: Tokens of a row's source, prompt included.
        target: Tokens of its target.
        devices: Processes that were started together.

    Example:
        >>> shape = Shape(weights=10**9, adapters=10**5, layers=24, hidden=1024, vocabulary=32000)
        >>> one = cost_of(shape, Pretrain(), 512, 32, 1)
        >>> round(one.memory / 2**30, 1), round(one.work / 1e15, 1)  # 6 x 1e9 x 544 x 4096
        (7.9, 13.4)
        >>> spread = cost_of(shape, Pretrain(shard=True), 512, 32, 8)
        >>> spread.work == one.work, spread.memory < one.memory / 4
        (True, True)
    """
    trained = shape.weights
    if settings.lora_rank is not None:
        trained = settings.lora_rank * shape.adapters
    if settings.trains == "prompt":
        trained = 0
    numbers = 2 if settings.trains == "prompt" else 4  # a frozen model stays in 16 bits
    moments = {"adamw": 8.0, "adafactor": 0.02, "sgd": 0.0}[settings.optimizer]
    parts = devices if settings.shard else 1
    held = (numbers * shape.weights + (4 + moments) * trained) / parts
    row = source + target
    rows_at_once = settings.task_batch_size if settings.method == "reptile" else 1
    slots = max(float(SLOTS), row * rows_at_once)
    layers = (
        2 * shape.layers + KEPT_A_LAYER if settings.checkpointing else KEPT_A_LAYER * shape.layers
    )
    kept = slots * shape.hidden * layers + slots * target / row * shape.vocabulary * 4
    again = 2 if settings.checkpointing else 0
    inner = (4 + again) * settings.inner_steps if settings.method != "multitask" else 0
    if settings.method == "maml":  # each inner step is differentiated once more
        inner *= 3
    outer = (6 if trained else 4) + again
    rows = settings.batch_size
    if settings.method != "multitask":
        rows = settings.meta_batch_size * settings.task_batch_size
    return Cost(held + kept, rows * row * shape.weights * (inner + outer))
