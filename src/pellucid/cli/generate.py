"""`pellucid generate`: continues a prompt, or talks in turns on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from pellucid.cli.options import DeviceName, Dtype, Json, Target, print_json
from pellucid.errors import ConfigError, TokenizerError
from pellucid.generate.sampling.presets import listing
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("generate", epilog="\b\n" + listing())(generate)


def generate(
    target: Target = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="The text to continue; left out: interactive.", show_default=False),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="How to choose the next id: one of those below.")
    ] = "balanced",
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="0 is greedy; 1 the model's own.", show_default=False),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Draw from the k likeliest ids.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Draw from the likeliest ids of this share.", show_default=False),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option("--repetition-penalty", help="Above 1: repeat less.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Length of the continuation.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal text.")] = 0,
    device: DeviceName = None,
    dtype: Dtype = "auto",
    json: Json = False,
) -> int:
    """Write text with a trained model.

    pellucid generate --prompt "To be" · pellucid generate runs/quick-001 --preset creative --seed 7
    """
    from pellucid import checkpoint
    from pellucid.config import from_tree, to_tree
    from pellucid.generate.opening import open_writer
    from pellucid.generate.sampling import SamplingConfig
    from pellucid.generate.sampling import preset as sampling_preset
    from pellucid.generate.text import generate_text, printable
    from pellucid.runtime.device import choose_device

    given = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    settings = {**to_tree(sampling_preset(preset)), **{k: v for k, v in given.items() if v is not None}}
    sampling = from_tree(SamplingConfig, settings)
    console = message_console()
    path, why = checkpoint.find_checkpoint(target)
    chosen = choose_device(device)
    writer = open_writer(path, chosen, dtype)
    loaded = writer.loaded
    console.print(f"{why}; device {chosen.type} ({chosen.reason}), {writer}", style="dim")

    def show(piece: str) -> None:
        sys.stdout.write(printable(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()

    for number, text in enumerate([prompt] if prompt is not None else _ask()):
        turn = sampling.model_copy(update={"seed": sampling.seed + number})
        loaded.tokenizer.encode(
            text, allow_special=not loaded.model.continues_prompt
        )  # what is no text is refused before any of it is shown
        if not json and prompt is not None and loaded.model.continues_prompt:
            show(text)
        try:
            result = generate_text(loaded.model, loaded.tokenizer, text, turn, on_text=None if json else show)
        except TokenizerError as error:
            if prompt is not None:
                raise
            console.print(str(error), style="yellow")
            continue
        if result.prompt_tokens_read < result.prompt_tokens:
            console.print(
                f"\nthe prompt has {result.prompt_tokens} tokens and the context {loaded.model.max_seq_len}: "
                f"only the last {result.prompt_tokens_read} were read",
                style="yellow",
            )
        if json:
            print_json(result.to_dict())
        else:
            show("\n")
            console.print(
                f"{result.new_tokens} tokens, {result.tokens_per_second:,.0f} tokens/s", style="dim"
            )
    return 0


def _ask() -> Iterator[str]:
    """Prompts from standard input, a line each, until it ends; on a terminal with a prompt sign."""
    on_terminal = sys.stdin.isatty()
    if on_terminal:
        sys.stderr.write("Type a beginning and press Enter; Ctrl-D leaves.\n")
    while True:
        if on_terminal:
            sys.stderr.write("> ")
            sys.stderr.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            line = "\x00"
        if not line:
            return
        if "\x00" in line:
            raise ConfigError("standard input is not text; type a prompt or give --prompt")
        yield line.rstrip("\r\n")
