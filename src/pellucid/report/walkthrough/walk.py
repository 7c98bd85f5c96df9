"""`walk`: one pass, observed, told as sections."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.errors import ConfigError, TokenizerError
from pellucid.model import EncoderDecoderLM, Transformer
from pellucid.model.observe import Observation, observe
from pellucid.report.walkthrough.heads import attention_sections
from pellucid.report.walkthrough.inside import feed_forward_section
from pellucid.report.walkthrough.labels import token_labels
from pellucid.report.walkthrough.parts import parts_section
from pellucid.report.walkthrough.place import place_section
from pellucid.report.walkthrough.prediction import prediction_section
from pellucid.report.walkthrough.shapes import shapes_section
from pellucid.report.walkthrough.subject import Origin, Subject, Tower
from pellucid.report.walkthrough.tokens import tokens_section
from pellucid.report.walkthrough.values import Walkthrough
from pellucid.report.walkthrough.vectors import embedding_section, norm_section, stream_section
from pellucid.tokenizers import Tokenizer

SENTENCE = "To be, or not to be"
"""What is read where no text is given."""
LONGEST = 128
"""Tokens that pictures have room for."""
ANSWER = 12
"""Tokens that an encoder-decoder writes where no target is given."""


def walk(
    model: Transformer,
    tokenizer: Tokenizer,
    text: str | None = None,
    *,
    origin: Origin,
    target: str | None = None,
    layer: int = 0,
    head: int | None = None,
) -> Walkthrough:
    """Lead a sentence through the model and tell what happens, with numbers from that one pass.

    `text` left out is `SENTENCE`, or as much of it as the model's context holds.
    `layer` is the block that is shown (of a shorter stack, its last), `head` the attention head (left out: the
    one with the sharpest attention). An encoder-decoder reads the sentence as its source; `target` is what its
    decoder reads; left out, what the model itself answers, chosen greedily, or with random weights the sentence.
    Raises ConfigError for an empty or too long sentence, a layer or head that the model has not, and a target
    for a decoder; TokenizerError for text that the tokenizer cannot encode.
    """
    layers = (
        [model.config.num_encoder_layers, model.config.num_decoder_layers]
        if isinstance(model, EncoderDecoderLM)
        else [model.config.num_layers]
    )
    _require("--layer", layer, max(layers), "blocks")
    if head is not None:
        _require("--head", head, model.config.num_heads, "attention heads")
    if tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"the tokenizer ({tokenizer.kind}) has {tokenizer.vocab_size} ids and the model only {model.vocab_size} "
            "(model.vocab_size); give the model at least as many, or use another tokenizer"
        )
    if text is None:
        text = _default_text(model, tokenizer)
    ids = _encode(model, tokenizer, text, "--text")
    if isinstance(model, EncoderDecoderLM):
        towers, note = _observe_pair(model, tokenizer, ids, target, layer, is_untrained=origin.is_random)
    elif target is not None:
        raise ConfigError(
            "--target is what an encoder-decoder writes, and this model is a decoder; give --text alone"
        )
    else:
        observation = observe(model, ids[None])
        towers, note = (_tower(observation, tokenizer, "decoder", "sentence", "", layers[0], layer),), ""
    subject = Subject(model, tokenizer, origin, text, towers[0].observation, towers, head, note)
    with torch.inference_mode():
        sections = (
            parts_section(subject),
            tokens_section(subject),
            embedding_section(subject),
            shapes_section(subject),
            norm_section(subject),
            place_section(subject),
            *attention_sections(subject),
            feed_forward_section(subject),
            stream_section(subject),
            prediction_section(subject),
        )
    return Walkthrough(f"One sentence through {origin.name}", text, sections)


def _require(option: str, number: int, count: int, what: str) -> None:
    if not 0 <= number < count:
        raise ConfigError(f"{option} {number}: the model has {count} {what}, 0 to {count - 1}")


def _default_text(model: Transformer, tokenizer: Tokenizer) -> str:
    try:
        ids = tokenizer.encode(SENTENCE)
    except TokenizerError as error:
        raise TokenizerError(
            f"the demo's own sentence cannot be read by this model ({error}); give one that it knows: --text"
        ) from None
    return SENTENCE if len(ids) <= model.max_seq_len else tokenizer.decode(ids[: model.max_seq_len])


def _encode(
    model: Transformer, tokenizer: Tokenizer, text: str, option: str, *, taken: int = 0
) -> Int[Tensor, " T"]:
    """The ids of a text; an encoder-decoder's may hold sentinels. taken: places that something else stands on."""
    ids = tokenizer.encode(text, allow_special=not model.continues_prompt).astype(np.int64)
    if not len(ids):
        raise ConfigError(f"{option}: the text is empty; give a sentence of at least one character")
    longest, why = min((LONGEST, "that the demo draws"), (model.max_seq_len, "of the model's context"))
    if len(ids) > longest - taken:
        raise ConfigError(
            f"{option}: the text has {len(ids):,} tokens, more than the {longest - taken} {why}; shorten it"
        )
    return torch.from_numpy(ids).to(model.device)


def _observe_pair(
    model: EncoderDecoderLM,
    tokenizer: Tokenizer,
    source: Tensor,
    target: str | None,
    layer: int,
    *,
    is_untrained: bool,
) -> tuple[tuple[Tower, Tower], str]:
    """Both halves of an encoder-decoder in one pass, and where the target comes from."""
    if target is None and is_untrained:
        answer = source[: model.max_seq_len - 1]
        note = "An untrained model has no answer of its own, so it reads the same sentence."
    elif target is None:
        longest = min(ANSWER, model.max_seq_len - 1)
        answer = cast(Tensor, model.generate(source, longest, stop_id=tokenizer.end_of_text_id))
        note = "No target was given, so it reads the model's own answer, each token of it the likeliest one."
    else:
        answer = _encode(model, tokenizer, target, "--target", taken=1)
        note = "The target is the one that was given."
    begin = torch.full_like(source[:1], model.start_id)
    observation = observe(model, source[None], torch.cat((begin, answer))[None])
    config = model.config
    shares_table = config.share_embeddings
    return (
        _tower(observation, tokenizer, "encoder", "source", "encoder.", config.num_encoder_layers, layer),
        _tower(
            observation,
            tokenizer,
            "decoder",
            "target",
            "decoder.",
            config.num_decoder_layers,
            layer,
            table="embedding" if shares_table else "target_embedding",
            call=1 if shares_table else 0,  # the encoder has looked its ids up first
        ),
    ), note


def _tower(
    observation: Observation,
    tokenizer: Tokenizer,
    name: str,
    reads: str,
    prefix: str,
    num_layers: int,
    layer: int,
    *,
    table: str = "embedding",
    call: int = 0,
) -> Tower:
    embedding = observation.step(table, call)
    ids = embedding.input[0]
    labels = token_labels(tokenizer, ids.tolist())
    return Tower(
        name=name,
        reads=reads,
        prefix=prefix,
        ids=ids,
        labels=labels if reads != "target" else ("<begin>", *labels[1:]),
        embedding=embedding,
        num_layers=num_layers,
        layer=min(layer, num_layers - 1),
        observation=observation,
    )
