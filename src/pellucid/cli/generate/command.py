"""The command: options → settings and an author, then one prompt, many, or turns."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from pellucid.cli.generate import options as ask
from pellucid.cli.generate import settings as chosen
from pellucid.cli.options import DeviceName, Dtype, Json, Target
from pellucid.errors import ConfigError, TokenizerError
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from rich.console import Console

    from pellucid.cli.generate.author import Author
    from pellucid.cli.generate.output import Output
    from pellucid.cli.generate.prompts import FilePrompt
    from pellucid.generate.text import Generation

BATCH_SIZE = 8


def generate(
    target: Target = None,
    prompt: ask.Prompt = None,
    prompts: ask.Prompts = None,
    batch_size: ask.BatchSize = None,
    preset: ask.Preset = None,
    strategy: ask.Strategy = None,
    temperature: ask.Temperature = None,
    top_k: ask.TopK = None,
    top_p: ask.TopP = None,
    min_p: ask.MinP = None,
    typical_p: ask.TypicalP = None,
    repetition_penalty: ask.RepetitionPenalty = None,
    frequency_penalty: ask.FrequencyPenalty = None,
    presence_penalty: ask.PresencePenalty = None,
    no_repeat_ngram_size: ask.NoRepeatNgramSize = None,
    ban: ask.Ban = None,
    stop: ask.Stop = None,
    min_new_tokens: ask.MinNewTokens = None,
    max_new_tokens: ask.MaxNewTokens = None,
    seed: ask.Seed = None,
    num_results: ask.NumResults = None,
    num_beams: ask.NumBeams = None,
    length_penalty: ask.LengthPenalty = None,
    early_stopping: ask.EarlyStopping = None,
    draft: ask.Draft = None,
    logprobs: ask.Logprobs = None,
    when_full: ask.WhenFull = "roll",
    device: DeviceName = None,
    dtype: Dtype = "auto",
    quantize: ask.Quantize = None,
    json: Json = False,
) -> int:
    """Write text with a trained model.

    \b
    pellucid generate --prompt "To be"
    pellucid generate runs/quick-001 --preset creative --seed 7     (in turns; /help there)
    pellucid generate --prompts prompts.txt --num-results 3 --json > texts.jsonl

    Text goes to standard output, all else to standard error. What is set besides a preset or a strategy is laid over
    it.
    """
    given = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical_p": typical_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "stop": stop,
        "min_new_tokens": min_new_tokens,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    beams = chosen.beams_of(num_beams, num_results, length_penalty, early_stopping)
    if beams is None:
        settings = chosen.settings_of(preset, strategy, given)
    else:
        settings = chosen.searched_settings({"preset": preset, "strategy": strategy, **given})
    count = num_results or 1
    _refuse_together(
        {
            "--prompt": prompt is not None,
            "--prompts": prompts is not None,
            "--num-beams": beams is not None,
            "--draft": draft is not None,
            "--logprobs": logprobs is not None,
            "--num-results": count > 1 and beams is None,
            "--batch-size": batch_size is not None,
            "--when-full stop": when_full == "stop",
        }
    )
    if batch_size is not None and prompts is None:
        raise ConfigError("--batch-size is for many prompts; give them with --prompts FILE")
    if count > 1 and beams is None and settings.sampling.temperature == 0:
        raise ConfigError(
            "at temperature 0 every result would be the same text; give a --temperature, another --preset, or "
            "--num-beams for the likeliest texts"
        )

    from pellucid.cli.generate.author import open_author
    from pellucid.cli.generate.dialogue import Dialogue
    from pellucid.cli.generate.output import Output
    from pellucid.cli.generate.prompts import piped_prompts, read_prompts
    from pellucid.runtime.allocator import freed_memory_kept

    from_file = None if prompts is None else read_prompts(prompts)
    console = message_console()
    author = open_author(
        target,
        console,
        device=device,
        dtype=dtype,
        quantize=quantize,
        draft=draft,
        logprobs=logprobs,
        when_full=when_full,
        beams=beams,
        num_results=count,
    )
    settings = settings.with_bans(ban or [], author.tokenizer)
    facts = {"checkpoint": str(author.path), "weights": author.writer.form}
    output = Output(console, author.tokenizer, author.model.max_seq_len, is_json=json, facts=facts)
    if prompt is None and prompts is None and sys.stdin.isatty():
        return Dialogue(author, settings, output, console, is_json=json).run()
    status = 0
    try:
        with freed_memory_kept():
            if from_file is not None:
                _write_many(author, settings, output, from_file, console, batch_size or BATCH_SIZE)
            elif prompt is not None:
                author.check(prompt)
                author.write(prompt, settings, output, shows_prompt=True)
            else:
                for number, line in enumerate(piped_prompts()):
                    if not _write_line(author, settings, output, line, number, console):
                        status = 1
    except KeyboardInterrupt:
        output.break_off()
        raise
    return status


def _refuse_together(given: dict[str, bool]) -> None:
    """Raise ConfigError for options that exclude each other."""
    reasons = {
        ("--prompt", "--prompts"): "give one prompt or a file of them",
        ("--num-beams", "--draft"): "beams are searched without drafts",
        ("--num-beams", "--logprobs"): "of beams the score of the whole text is shown",
        ("--num-beams", "--when-full stop"): "beams go on with the newest half of the context",
        ("--draft", "--num-results"): "drafts are for one text at a time",
        ("--draft", "--batch-size"): "drafts are for one text at a time",
        ("--draft", "--logprobs"): "of drafted ids the model's own are not kept",
    }
    for (one, other), reason in reasons.items():
        if given[one] and given[other]:
            raise ConfigError(f"{one} and {other} exclude each other: {reason}; leave one of them out")


def _write_line(
    author: Author, settings: chosen.Settings, output: Output, line: str, number: int, console: Console
) -> bool:
    """One line of a pipe, if it can be read; what the tokenizer has no ids for is said, and the next line comes."""
    try:
        author.check(line)
    except TokenizerError as error:
        console.print(f"line {number + 1}: {error}", style="yellow")
        return False
    author.write(line, settings, output, number=number)
    return True


def _write_many(
    author: Author,
    settings: chosen.Settings,
    output: Output,
    prompts: list[FilePrompt],
    console: Console,
    batch_size: int,
) -> None:
    """Every prompt of a file, so many together; all are checked before the first is written."""
    from pellucid.cli.generate.author import describe_settings

    for each in prompts:
        author.check(each.text, where=each.where)
    status, began = StatusLine(console, after_s=1.0), time.monotonic()
    done: list[Generation] = []
    described = describe_settings(author, settings)
    batch_size = 1 if author.options.proposer is not None else batch_size
    written = author.write_all([each.text for each in prompts], settings.sampling, batch_size=batch_size)
    for number, (asked, results) in enumerate(zip(prompts, written, strict=True), start=1):
        status.clear()
        output.begin()
        output.show_all(
            results,
            seed=settings.sampling.seed,
            settings=described,
            shows_prompt=author.model.continues_prompt,
            which=f"prompt {number} of {len(prompts)}",
        )
        output.say_what_was_read(results[0], f"{asked.where}the prompt has")
        done += results
        if not sys.stdout.isatty():
            seconds = (time.monotonic() - began) / number * (len(prompts) - number)
            status.show(f"{number} of {len(prompts)} prompts, {seconds:,.0f} s left")
    status.clear()
    output.say_totals(done, time.monotonic() - began)
