"""The README of an exported model: what it is, what it learned from, how good it is, and the receipt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pellucid import checkpoint
from pellucid.checkpoint import Loaded
from pellucid.checkpoint.layout import CHECKPOINTS
from pellucid.interop.receipt import Receipt
from pellucid.model.stats import count_parameters
from pellucid.train.run_files import PASSPORT

_SHOWN = 20
"""Of a list."""


def model_card(
    loaded: Loaded, *, name: str, family: str, receipt: Receipt, licence: str | None = None
) -> str:
    """Markdown with the front matter that the hub reads."""
    config, model = loaded.config, loaded.model
    lines = [
        "---",
        *([f"license: {licence}"] if licence else []),
        "library_name: transformers",
        "pipeline_tag: " + ("text-generation" if model.continues_prompt else "text2text-generation"),
        "tags: [pellucid]",
        "---",
        f"# {name}",
        "",
        f"A language model of {count_parameters(model).total:,} parameters, {_origin(config)}; written by Pellucid "
        f"as a model of the {family} family: it loads without remote code.",
        "",
        "```python",
        "from transformers import AutoTokenizer, " + _loader(model.continues_prompt),
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        f'model = {_loader(model.continues_prompt)}.from_pretrained("{name}")',
        'written = model.generate(**tokenizer("Once", return_tensors="pt"), max_new_tokens=50)',
        "print(tokenizer.decode(written[0]))",
        "```",
        "",
        "## Model",
        "",
        *_table(
            {
                "vocabulary": f"{model.vocab_size:,}",
                "context": f"{model.max_seq_len:,} tokens",
                **_shape(config),
            }
        ),
        "## Data",
        "",
        *_data(loaded),
        "## Results",
        "",
        *_results(loaded),
        "## Parity",
        "",
        "What was found when it was written:"
        if receipt.not_compared
        else f"Compared with {receipt.other} when it was written:",
        "",
        "```text",
        *receipt.lines(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _origin(config: Mapping[str, Any]) -> str:
    if imported := config.get("imported"):
        return f"imported from {imported['from']}"
    return "trained with Pellucid" if "train" in config else "of unrecorded origin"


def _loader(continues_prompt: bool) -> str:
    return "AutoModelForCausalLM" if continues_prompt else "AutoModelForSeq2SeqLM"


def _table(rows: Mapping[str, Any]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    wanted = (
        "d_model",
        "num_layers",
        "num_encoder_layers",
        "num_decoder_layers",
        "num_heads",
        "num_kv_heads",
    )
    return {key: value for key in wanted if (value := config["model"].get(key)) is not None}


def _data(loaded: Loaded) -> list[str]:
    """The run's passport where the checkpoint lies in a run; else the name of what the config says."""
    if loaded.path.parent.name == CHECKPOINTS:
        try:
            passport = json.loads((loaded.path.parent.parent / PASSPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            passport = None
        if passport is not None:
            shown = json.dumps(_short(passport), indent=2, ensure_ascii=False)
            return ["```json", shown, "```", ""]
    path = loaded.config.get("data", {}).get("path")
    return [f"`{Path(path).name}`" if path else "Not recorded.", ""]


def _short(value: Any) -> Any:
    """Long lists by their beginning, and of paths of this machine the last name alone."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        items = cast(list[Any], value)
        rest = [f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
        return [*map(_short, items[:_SHOWN]), *rest]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _results(loaded: Loaded) -> list[str]:
    values = checkpoint.load_train_values(loaded.path)
    if values.get("best_loss") is None:
        return ["Not recorded.", ""]
    rows = {
        "updates": f"{values['step']:,}",
        "tokens seen": f"{values['tokens']:,}",
        "best validation loss": f"{values['best_loss']:.4f} nats a token (update {values['best_step']:,})",
    }
    return _table(rows)
