"""The mode in which a model is scored and sampled."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from pellucid.model.interface import LanguageModel


@contextmanager
def evaluation_mode(model: LanguageModel) -> Generator[None]:
    """Dropout off and compiled blocks run eagerly inside; as it was before, after.

    Evaluation and generation come in many shapes, each of which would be compiled anew.
    """
    module = model if isinstance(model, nn.Module) else None
    was_training = module is not None and module.training
    if module is not None:
        module.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if module is not None:
            module.train(was_training)
