"""What every test stands on: no network, one thread a worker, a cache of its own."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any library reads them. One thread also keeps golden numbers the same on every machine.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

_cache = tempfile.TemporaryDirectory(prefix="headstart-tests-")
os.environ["HEADSTART_CACHE"] = _cache.name


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """Keep the person's own cache out of the tests; the folder goes away with the session."""
    if "torch" in sys.modules:  # loaded before the lines above could speak
        sys.modules["torch"].set_num_threads(1)
    yield
    _cache.cleanup()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; the test is skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder
