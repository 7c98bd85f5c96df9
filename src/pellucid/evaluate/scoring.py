"""Token losses of windows of ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.batch import Batch
from pellucid.data.loader import TensorBatch
from pellucid.losses import token_losses
from pellucid.model import LanguageModel
from pellucid.model.inference import evaluation_mode
from pellucid.runtime.precision import Precision


def score_windows(
    model: LanguageModel, batches: Iterable[Batch], precision: Precision
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each batch, the targets that carry weight and -log p of each in nats, in the order of the text."""
    device = model.device
    for batch in batches:
        tensors = TensorBatch.of(batch).to(device)
        # Not around the loop, where the modes would hold for the caller too, between two batches.
        with evaluation_mode(model), torch.inference_mode(), precision.autocast():
            states = model.hidden(**tensors.model_inputs()).states
            losses = token_losses(states.flatten(0, 1), model.head_parameters(), tensors.targets.flatten())
        counted = batch.weights.reshape(-1) > 0
        yield batch.targets.reshape(-1)[counted], losses.cpu().numpy()[counted]
