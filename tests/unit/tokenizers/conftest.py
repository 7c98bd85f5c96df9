import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.tokenizers import GPT2Config, P50kBaseConfig, Tokenizer

CACHED = {
    "gpt2": ("6d1cbeee0f20b3d9449abfede4726ed8212e3aee", "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"),
    "p50k_base": ("ec7223a39ce59f226a68acc30dc1af2788490e15",),
    "cl100k_base": ("9b5ad71b2ce5302211f9c61530b329a4922fc6a4",),
    "o200k_base": ("fb374d419588a4632f3f557e76b4b70aebbca790",),
}


@pytest.fixture(scope="session")
def gpt2() -> Tokenizer:
    return GPT2Config().build()


@pytest.fixture(scope="session")
def p50k() -> Tokenizer:
    return P50kBaseConfig().build()


@pytest.fixture
def cache_with() -> Callable[[str], Path]:
    """The directory of tiktoken's cache, or a skip when it lacks the files of this encoding."""

    def directory(kind: str) -> Path:
        folder = os.environ.get("TIKTOKEN_CACHE_DIR")
        if not folder or not all((Path(folder) / name).is_file() for name in CACHED[kind]):
            pytest.skip(f"TIKTOKEN_CACHE_DIR names no directory with tiktoken's files of {kind}")
        return Path(folder)

    return directory
