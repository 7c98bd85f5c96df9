"""A checkpoint is a directory that can be understood without us, verified by hashes, loaded without pickle."""

from pellucid.checkpoint.layout import (
    find_checkpoint,
    is_averaged,
    newest_run,
    newest_valid,
    verify,
    weights_hash,
)
from pellucid.checkpoint.load import (
    Loaded,
    StoredState,
    load,
    load_config,
    load_model_and_tokenizer_config,
    load_train_state,
    load_train_values,
)
from pellucid.checkpoint.store import Contents, make_room, save
from pellucid.checkpoint.weights import WeightFormat, load_weights, narrowed, save_weights

__all__ = [
    "Contents",
    "Loaded",
    "StoredState",
    "WeightFormat",
    "find_checkpoint",
    "is_averaged",
    "load",
    "load_config",
    "load_model_and_tokenizer_config",
    "load_train_state",
    "load_train_values",
    "load_weights",
    "make_room",
    "narrowed",
    "newest_run",
    "newest_valid",
    "save",
    "save_weights",
    "verify",
    "weights_hash",
]
