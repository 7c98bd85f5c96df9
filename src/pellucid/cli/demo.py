"""`pellucid demo`: one sentence through one model, component by component."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from pellucid.cli.options import PRESETS_HELP, Json, print_json, run_config
from pellucid.errors import CheckpointError, ConfigError
from pellucid.presets import MODELS, RUNS
from pellucid.runtime.console import message_console

if TYPE_CHECKING:
    from pellucid.model import Transformer
    from pellucid.report.walkthrough import Origin
    from pellucid.tokenizers import Tokenizer

DEFAULT_PRESET = "quick"
"""What is shown where nothing is named and nothing has been trained yet."""


def register(app: typer.Typer) -> None:
    app.command("demo", epilog=PRESETS_HELP)(demo)


def demo(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PRESET_OR_CHECKPOINT] [KEY=VALUE]…",
            help="A run, a checkpoint or a preset, whose parts can be changed; default: the newest run.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="SENTENCE", help="What it reads.", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="SENTENCE",
            help="What an encoder-decoder's decoder reads; default: its own answer (untrained: SENTENCE).",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[int, typer.Option("--layer", help="The block that is shown, from 0.")] = 0,
    head: Annotated[
        int | None,
        typer.Option("--head", help="The attention head, from 0; default: the sharpest.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write one self-contained page instead.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of a preset's random weights.")] = 0,
    json: Json = False,
) -> int:
    """Walk one sentence through a model, step by step: ids, shapes, attention, the next token.

    pellucid demo · pellucid demo edu-4l --text "Once upon a time" · pellucid demo quick model.norm.kind=layernorm
    """
    from dataclasses import replace

    from pellucid.report.walkthrough import print_walkthrough, to_html, walk
    from pellucid.runtime.files import write_atomic

    console = message_console()
    found = _find(words or [], seed)
    model, tokenizer, origin, why = found[:4]
    console.print(why, style="dim")
    walkthrough = walk(
        model,
        tokenizer,
        text,
        origin=origin,
        target=target,
        layer=layer,
        head=head,
    )
    walkthrough = replace(walkthrough, next_steps=_next_steps(words or [], found))
    if html is not None:
        write_atomic(html, to_html(walkthrough))
        console.print(f"wrote {html}: open it in a browser")
    if json:
        print_json(walkthrough.to_dict())
    elif html is None:
        print_walkthrough(walkthrough, Console(highlight=False, markup=False))
    return 0


class _Found(NamedTuple):
    model: Transformer
    tokenizer: Tokenizer
    origin: Origin
    why: str
    """What was taken."""
    needs_data: bool = False
    """Whether the preset trains on pairs, which the built-in text has not, and none were given."""


def _find(words: Sequence[str], seed: int) -> _Found:
    names, changes = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if len(names) > 1:
        raise ConfigError(f"{names[1]!r}: one model at a time ({names[0]!r} came first)")
    presets = RUNS | MODELS
    if names and names[0] in presets:
        return _from_preset(names[0], changes, seed)
    if names and not Path(names[0]).exists() and not {"/", "\\"} & set(names[0]):
        from pellucid.config import nearest

        raise ConfigError(
            f"there is no preset, run or checkpoint {names[0]!r}{nearest(names[0], presets)} "
            f"(presets: {', '.join(presets)})"
        )
    from pellucid import checkpoint

    if not names:
        try:
            checkpoint.newest_run(Path("runs"))
        except CheckpointError:
            found = _from_preset(DEFAULT_PRESET, changes, seed)
            return found._replace(why=f"no trained run is there yet: {found.why}")
    path, why = checkpoint.find_checkpoint(Path(names[0]) if names else None)
    if changes:
        raise ConfigError(
            f"{changes[0]}: a checkpoint's model is as it was trained ({path}); name a preset to change its parts"
        )
    return _from_checkpoint(path, why)


def _from_checkpoint(path: Path, why: str) -> _Found:
    from pellucid import checkpoint
    from pellucid.report.walkthrough import Origin

    loaded = checkpoint.load(path, is_verified=True)
    values = checkpoint.load_train_values(path)
    step = values.get("step")
    loss = values.get("best_loss") if values.get("best_step") == step else None
    return _Found(loaded.model, loaded.tokenizer, Origin(str(path), step=step, loss=loss), why)


def _from_preset(name: str, changes: Sequence[str], seed: int) -> _Found:
    """The model of a preset with random weights, and the tokenizer that its data would be read by."""
    from dataclasses import asdict

    from pellucid import tokenizers
    from pellucid.data.sources import documents, open_source
    from pellucid.model import EncoderDecoderConfig
    from pellucid.report.walkthrough import Origin

    config = run_config([name, *changes])
    data = config.data

    def corpus() -> Iterator[str]:
        return (document.text for document in documents(open_source(data.path, **asdict(data.reading))))

    tokenizer = tokenizers.build(data.tokenizer, corpus)
    model = config.model
    left_open: dict[str, int] = {} if model.vocab_size else {"vocab_size": tokenizer.vocab_size}
    if isinstance(model, EncoderDecoderConfig) and model.start_id is None:
        left_open["start_id"] = tokenizer.end_of_text_id or 0
    model = model.model_copy(update=left_open)
    what = " ".join([f"preset {name}", *changes])
    origin = Origin.random(what, seed=seed)
    needs_data = data.objective.kind == "paired" and data.path == type(data)().path
    return _Found(model.build(seed=seed), tokenizer, origin, f"{what}, random weights", needs_data)


def _next_steps(words: Sequence[str], found: _Found) -> tuple[tuple[str, str], ...]:
    """Commands for what was shown: other words, the same preset trained, another part, the other family."""
    again = shlex.join(["pellucid", "demo", *words])
    steps = [
        (f'{again} --text "Your own words"', "other ids, other numbers"),
        (f"{again} --html demo.html", "the same as a page"),
    ]
    if found.origin.is_random:
        model = found.model.config
        preset = next((word for word in words if "=" not in word), DEFAULT_PRESET)
        changes = [word for word in words if "=" in word]
        if found.needs_data:
            changes.append("data.path=FILE")
        position = "rope" if model.position.kind == "learned" else "learned"
        other = (
            ("quick", "a decoder")
            if model.kind == "encoder_decoder"
            else ("encdec-quick", "an encoder-decoder")
        )
        steps += [
            (shlex.join(["pellucid", "train", preset, *changes]), "to see it trained"),
            (f"pellucid demo {preset} model.position.kind={position}", "another part"),
            (f"pellucid demo {other[0]}", other[1]),
        ]
    return tuple(steps)
