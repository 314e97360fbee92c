"""Models on the Hugging Face Hub: whether one can be had, told at once."""

from __future__ import annotations

from headstart.errors import ModelError

SECONDS = 10.0
"""How long the hub may take to answer."""


def on_hub(kind: str, name: str, hub_id: str, way_out: str) -> str:
    """Return the hub id of a model that is in the cache or can be reached.

    Args:
        kind: What it is for people, e.g. ``"model"``.
        name: What they asked for.
        hub_id: Where it is.
        way_out: What else they can do.

    Raises:
        ModelError: It is not on this machine and the hub is off, silent or knows no such model.

    Example:
        >>> on_hub("model", "a//b", "a//b", "or take tiny-causal")
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: 'a//b' is neither a folder nor a hub id (...)
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
            return hub_id
        if not constants.HF_HUB_OFFLINE:
            HfApi().model_info(hub_id, timeout=SECONDS)
            return hub_id
        reason = "the hub is off"
    except HFValidationError as error:
        raise ModelError(f"'{name}' is neither a folder nor a hub id ({error})") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{kind} '{name}': the hub has no '{hub_id}'; {way_out}") from error
    except Exception as error:  # the hub's client raises many kinds: all mean "not to be had now"
        reason = f"the hub gave no answer ({type(error).__name__})"
    raise ModelError(
        f"{kind} '{name}' is not on this machine and {reason}; fetch it with `hf download {hub_id}`, "
        f"{way_out}"
    )
