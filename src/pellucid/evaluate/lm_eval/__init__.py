"""Checkpoints under lm-evaluation-harness (the extra `eval`): its tasks, its prompts, its numbers, our model.

Importing this package registers the model name `pellucid` with the harness, without loading torch:

    import lm_eval
    import pellucid.evaluate.lm_eval

    lm_eval.simple_evaluate("pellucid", "pretrained=runs/quick-001", tasks=["hellaswag"])

`python -m pellucid.evaluate.lm_eval --model_args pretrained=runs/quick-001 --tasks hellaswag` is the harness's own
command line, told of the model. Plain `lm_eval --model pellucid` does not know it: the harness (0.4.13) has a fixed
table of model names and looks for none in other packages.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.evaluate.lm_eval.adapter import PellucidLM

__all__ = ["PellucidLM"]

MODEL = "pellucid"


def _register() -> None:
    # Its own names are entered when this is imported, which get_model leaves out once there is any name.
    import lm_eval.models  # noqa: F401  # pyright: ignore[reportUnusedImport]
    from lm_eval.api.registry import model_registry

    if MODEL not in model_registry:
        model_registry.register(MODEL, target=f"{__name__}.adapter:PellucidLM")


if importlib.util.find_spec("lm_eval") is not None:
    _register()


def __getattr__(name: str) -> Any:
    if name == "PellucidLM":
        from pellucid.runtime.extras import require

        require("lm_eval", extra="eval", purpose="the adapter for lm-evaluation-harness")
        from pellucid.evaluate.lm_eval.adapter import PellucidLM

        return PellucidLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
