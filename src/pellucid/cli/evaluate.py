"""`pellucid evaluate`: loss, perplexity and bits per byte over a split or a text file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, Json, Target, print_json
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    target: Target = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="A .txt file or prepared directory; default: the run's data.", show_default=False
        ),
    ] = None,
    split: Annotated[
        Literal["val", "train"], typer.Option("--split", help="Which side of prepared data.")
    ] = "val",
    seq_len: Annotated[
        int | None,
        typer.Option(
            "--seq-len", min=1, help="Window length; default: the model's context.", show_default=False
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, help="Score only so many first tokens.", show_default=False),
    ] = None,
    device: DeviceName = None,
    dtype: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option("--dtype", help="fp32 is the most exact.")
    ] = "fp32",
    json: Json = False,
) -> int:
    """Measure a model: mean loss in nats a token, perplexity, bits per byte."""
    from pellucid import checkpoint
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.precision import choose_precision
    from pellucid.train.score import score_checkpoint

    console = message_console()
    path, why = checkpoint.find_checkpoint(target)
    console.print(why, style="dim")
    chosen = choose_device(device)
    precision = choose_precision(dtype, chosen)
    what, score = score_checkpoint(
        path, data=data, split=split, precision=precision, seq_len=seq_len, max_tokens=max_tokens
    )
    if json:
        print_json(
            {
                "checkpoint": str(path),
                "is_averaged": checkpoint.is_averaged(path),
                "data": what,
                "precision": precision.name,
                **score.to_dict(),
            }
        )
    else:
        Console(highlight=False, markup=False, soft_wrap=True).print(
            f"{what}: loss {score.loss:.4f} nats/token, perplexity {score.perplexity:.3f}, "
            f"{score.bits_per_byte:.4f} bits/byte ({score.tokens:,} tokens, {score.bytes:,} bytes, {precision.name})"
        )
    return 0
