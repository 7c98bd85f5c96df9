"""Options that several commands share, and how words become a run's config. No torch until a config is built."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.errors import ConfigError
from pellucid.presets import RUNS, listing, run_preset
from pellucid.runtime.strict_json import to_json

if TYPE_CHECKING:
    from pellucid.train.config import RunConfig

PRESETS_HELP = "\n\n".join(f"\b\n{paragraph}" for paragraph in listing().split("\n\n"))

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PRESET] [KEY=VALUE]…", help="A preset below, and what to change in it.", show_default=False
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A TOML file, laid over the preset.", show_default=False),
]
Quick = Annotated[bool, typer.Option("--quick", help="The preset's small sibling.")]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cuda, mps or cpu; default: the best one here.", show_default=False
    ),
]
Dtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"], typer.Option("--dtype", help="Number format of the computation.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="JSON on standard output, an object a line; messages go to standard error."),
]
TextField = Annotated[str, typer.Option("--text-field", help="The field of a record that holds the text.")]
DocumentMarker = Annotated[
    str | None,
    typer.Option(
        "--document-marker",
        metavar="TEXT",
        help="What stands between documents of a text file, e.g. '<|endoftext|>'.",
        show_default=False,
    ),
]
FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="SUFFIX",
        help="Of standard input and of files whose suffix names no format, e.g. jsonl.",
        show_default=False,
    ),
]
FaultPolicy = Annotated[
    Literal["strict", "replace", "skip"],
    typer.Option("--errors", help="Bytes that are not UTF-8: stop, replace them, or skip the document."),
]
Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN_OR_CHECKPOINT]",
        help="A run (its best checkpoint), or a checkpoint; default: the newest run.",
    ),
]


def run_config(
    words: Sequence[str], *, config_file: Path | None = None, quick: bool = False, init: Path | None = None
) -> RunConfig:
    """PRESET, then --config, then overrides, each laid over the one before.

    init: a checkpoint to start from, whose model and tokenizer are taken in place of the preset's.
    """
    from pellucid.config import from_tree, merge, override, read_toml, to_tree

    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise ConfigError(
            f"{names[1]!r}: one preset at a time ({names[0]!r} came first); overrides are key.path=value"
        )
    if not names and config_file is None:
        raise ConfigError(f"name a preset or give --config FILE (presets: {', '.join(RUNS)})")
    if quick and not names:
        raise ConfigError("--quick takes a preset's small sibling; name the preset")
    tree = to_tree(run_preset(names[0], quick=quick)) if names else {}
    from pellucid.train.config import RunConfig  # with torch, which an unknown preset need not wait for

    where = ""
    if config_file is not None:
        tree, where = merge(tree, read_toml(config_file)), str(config_file)
        from_tree(RunConfig, tree, where=where)  # so that a fault of the file is named as the file's
    if init is not None:
        from pellucid.checkpoint import find_checkpoint, load_model_and_tokenizer_config

        model, tokenizer = load_model_and_tokenizer_config(find_checkpoint(init)[0])
        tree = tree | {"model": model, "data": tree.get("data", {}) | {"tokenizer": tokenizer}}
    return from_tree(RunConfig, override(tree, [word for word in words if "=" in word]))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object as one line of standard output; null for what is not finite."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()
