"""`pellucid export`: a checkpoint to where people use models, and proof that it is the same model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from pellucid.cli.options import Json, Target, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    target: Target = None,
    to: Annotated[Literal["hf", "gguf", "weights"], typer.Option("--to", help="The format.")] = "hf",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to; default: exports/NAME.", show_default=False),
    ] = None,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option("--dtype", help="Of the weights (hf, weights); default: fp32.", show_default=False),
    ] = None,
    quantize: Annotated[
        Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"] | None,
        typer.Option("--quantize", help="Of the matrices (gguf); default: f16.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="For the model card (hf), such as apache-2.0; default: none named.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Write a model in another format, read it back with the other side's own code, and compare.

    pellucid export runs/quick-001 --to hf --out my-model
    """
    from pellucid import checkpoint
    from pellucid.interop.exchange import export_gguf, export_hf, export_weights

    _require_fitting(to, out, {"--dtype": dtype, "--quantize": quantize, "--license": licence})
    console = message_console()
    source, why = checkpoint.find_checkpoint(target)
    console.print(why, style="dim")
    place = source.absolute()
    name = place.parent.parent.name if place.parent.name == "checkpoints" else place.name
    out = out or Path("exports") / (f"{name}.gguf" if to == "gguf" else name)
    if to == "weights":
        export_weights(source, out, weight_format=dtype or "fp32")
        receipt = None
    elif to == "gguf":
        receipt = export_gguf(source, out, number_format=quantize or "f16")
    else:
        receipt = export_hf(source, out, weight_format=dtype or "fp32", licence=licence)
    for line in [] if receipt is None else receipt.lines():
        console.print(line)
    if json:
        print_json({"out": str(out), "to": to, "receipt": None if receipt is None else receipt.to_dict()})
    else:
        console.print(f"written: {out}")
    return 0


_BELONG = {"--dtype": ("hf", "weights"), "--quantize": ("gguf",), "--license": ("hf",)}


def _require_fitting(to: str, out: Path | None, given: Mapping[str, str | None]) -> None:
    """Raise ConfigError for a word that says nothing about this format."""
    for option, value in given.items():
        if value is not None and to not in _BELONG[option]:
            raise ConfigError(
                f"{option} is for --to {' or '.join(_BELONG[option])}, not for --to {to}; leave it out"
            )
    if out is not None and out.suffix == ".gguf" and to != "gguf":
        raise ConfigError(f"--out {out}: --to {to} writes a directory; give --to gguf for a GGUF file")
