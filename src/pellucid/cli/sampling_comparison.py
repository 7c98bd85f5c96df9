"""`pellucid sampling-comparison`: one prompt under many strategies and seeds, side by side."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, Dtype, Json, Target, print_json
from pellucid.generate.sampling.presets import TABLE
from pellucid.generate.strategies import STRATEGIES
from pellucid.runtime.console import StatusLine, message_console


def register(app: typer.Typer) -> None:
    app.command("sampling-comparison")(sampling_comparison)


def sampling_comparison(
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="The text to continue.")],
    target: Target = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help=f"One of {', '.join(STRATEGIES)}; may be given several times.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help=f"One of {', '.join(TABLE)}; may be given several times.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many texts of each.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first of the seeds.")] = 0,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Length of a continuation.")
    ] = 80,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write one self-contained page instead.", show_default=False
        ),
    ] = None,
    device: DeviceName = None,
    dtype: Dtype = "auto",
    json: Json = False,
) -> int:
    """Continue one prompt in many ways, and measure how varied and how repetitive the texts are.

    \b
    pellucid sampling-comparison --prompt "To be"
    pellucid sampling-comparison runs/quick-001 --prompt "To be" --strategy top_p --preset balanced --html page.html

    Without --strategy and --preset: all there are.
    """
    from pellucid import checkpoint
    from pellucid.generate.comparison import choices, compare_sampling
    from pellucid.generate.opening import open_writer
    from pellucid.report.sampling import print_comparison, to_html
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.files import write_atomic

    named = choices(strategy or (), preset or ())
    console = message_console()
    path, why = checkpoint.find_checkpoint(target)
    chosen = choose_device(device)
    writer = open_writer(path, chosen, dtype)
    console.print(f"{why}; device {chosen.type} ({chosen.reason}), {writer}", style="dim")
    status, began = StatusLine(console, after_s=1.0), time.monotonic()

    def show(done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        status.show(f"{done} of {total} texts, {left:,.0f} s left")

    comparison = compare_sampling(
        writer.loaded.model,
        writer.loaded.tokenizer,
        prompt,
        named,
        seeds=range(seed, seed + seeds),
        max_new_tokens=max_new_tokens,
        on_sample=show,
    )
    status.clear()
    if comparison.prompt_tokens_read < comparison.prompt_tokens:
        console.print(
            f"the prompt has {comparison.prompt_tokens} tokens and the context {writer.loaded.model.max_seq_len}: "
            f"only the last {comparison.prompt_tokens_read} were read",
            style="yellow",
        )
    if html is not None:
        write_atomic(html, to_html(comparison, model=str(path)))
        console.print(f"wrote {html}: open it in a browser")
    if json:
        print_json({"checkpoint": str(path), "dtype": writer.form, **comparison.to_dict()})
    elif html is None:
        print_comparison(comparison, Console(highlight=False, markup=False))
    again = shlex.join(["pellucid", "generate", str(path)])
    console.print(f"next: {again} --preset NAME   (interactive; by one of {', '.join(TABLE)})")
    return 0
