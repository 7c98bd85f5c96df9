"""Scores of each objective against a direct computation: a row at a time, without padding, whole logits."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.data.objectives import (
    Objective,
    ObjectiveConfig,
    PairedConfig,
    PrefixConfig,
    SpanCorruptionConfig,
    sentinel_names,
)
from pellucid.data.prepare import prepare
from pellucid.data.shards import Split, open_shards
from pellucid.data.sources import open_source
from pellucid.errors import DataError
from pellucid.evaluate.perplexity import evaluate_split
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import choose_precision
from pellucid.tokenizers import ByteTokenizer

FP32 = choose_precision(
    "fp32", Device("cpu", "for a test", has_bf16=True, can_compile=False, compile_reason="")
)
TOKENIZER = ByteTokenizer(sentinel_names(10))
SEQ_LEN, START = 16, 256
TEXT = "naïve café: 42 €, and plain words to the end of it"


def wide(model: torch.nn.Module) -> None:
    """Far enough from uniform that a wrong context shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def decoder() -> DecoderLM:
    config = {"d_model": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": SEQ_LEN, "dropout": 0.2}
    model = DecoderConfig(vocab_size=TOKENIZER.vocab_size, **config).build(seed=1)
    wide(model)
    return model


@pytest.fixture(scope="module")
def encoder_decoder() -> EncoderDecoderLM:
    config = {"d_model": 16, "num_encoder_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "dropout": 0.2}
    model = EncoderDecoderConfig(
        vocab_size=TOKENIZER.vocab_size, max_seq_len=SEQ_LEN, start_id=START, **config
    ).build(seed=1)
    wide(model)
    return model


def build(config: ObjectiveConfig, *, is_encoder_decoder: bool = True) -> Objective:
    return config.build(
        tokenizer=TOKENIZER, is_encoder_decoder=is_encoder_decoder, seq_len=SEQ_LEN, start_id=START
    )


def split() -> Split:
    ids = TOKENIZER.encode(TEXT * 3).astype(np.uint16)
    return Split("val", (ids[:70], ids[70:]))


def paired(folder: Path) -> Split:
    path = folder / "a.jsonl"
    lines = [f'{{"source": "{"é" * (n % 7 + 1)}", "target": "{"x" * (n % 11 + 1)}{n}"}}\n' for n in range(30)]
    path.write_text("".join(lines), encoding="utf-8")
    source = open_source(path, pair_fields=("source", "target"))
    prepare(source, TOKENIZER, folder / "out", val_fraction=0.4)
    return open_shards(folder / "out").val


def ids(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)[None]


def direct(model: EncoderDecoderLM, objective: Objective, data: Split) -> tuple[float, float, list[int]]:
    """The sum of the losses, that of bytes alone, and the targets of every row, each with its own source."""
    total, told, targets = 0.0, 0.0, list[int]()
    for batch in objective.evaluation_batches(data, 1):
        learned = batch.weights[0] > 0
        source = batch.encoder_inputs[0][batch.encoder_documents[0] == 0]
        with torch.no_grad():
            logits = model.eval()(ids(source), ids(batch.inputs[0][learned]))[0]
        target = batch.targets[0][learned]
        losses = F.cross_entropy(logits.double(), torch.from_numpy(target), reduction="none")
        total += losses.sum().item()
        told += losses[torch.from_numpy(target < 256)].sum().item()  # sentinels and ends have no bytes
        targets += target.tolist()
    return total, told, targets


@pytest.mark.parametrize(
    "config", [PrefixConfig(), SpanCorruptionConfig(), PairedConfig()], ids=lambda c: c.kind
)
def test_an_encoder_decoder_is_scored_by_its_targets(
    encoder_decoder: EncoderDecoderLM, tmp_path: Path, config: ObjectiveConfig
) -> None:
    data = paired(tmp_path) if config.kind == "paired" else split()
    objective = build(config)
    total, told, targets = direct(encoder_decoder, objective, data)
    encoder_decoder.train()
    found = evaluate_split(encoder_decoder, TOKENIZER, data, FP32, objective=objective)
    text = [token for token in targets if token < 256]  # an id a byte; sentinels and ends are none
    assert (found.tokens, found.bytes) == (len(targets), len(text))
    assert found.loss == pytest.approx(total / len(targets), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(told / math.log(2) / len(text), rel=1e-5)
    assert (told < total) == (len(text) < len(targets))
    assert (len(text) < len(targets)) == (config.kind != "prefix")
    assert encoder_decoder.training


def test_a_decoder_sees_its_prefix_in_both_directions(decoder: DecoderLM) -> None:
    objective = build(PrefixConfig(), is_encoder_decoder=False)
    total, count = 0.0, 0
    for batch in objective.evaluation_batches(split(), 1):
        learned = batch.weights[0] > 0
        length = int(learned.nonzero()[0][-1]) + 1
        with torch.no_grad():
            states = decoder.eval().hidden(
                ids(batch.inputs[0][:length]), prefix_lengths=torch.from_numpy(batch.prefix_lengths)
            )
            logits = decoder.head(states.states)[0]
        losses = F.cross_entropy(
            logits.double(), torch.from_numpy(batch.targets[0][:length]), reduction="none"
        )
        total += losses[torch.from_numpy(learned[:length])].sum().item()
        count += int(learned.sum())
    found = evaluate_split(decoder, TOKENIZER, split(), FP32, objective=objective)
    assert found.tokens == count < split().tokens
    assert found.loss == pytest.approx(total / count, rel=1e-5)
    causal = evaluate_split(decoder, TOKENIZER, split(), FP32)
    assert abs(causal.loss - found.loss) > 1e-3


def test_marks_between_documents_cost_in_causal_scoring_alone(decoder: DecoderLM) -> None:
    ids = np.concatenate([[*TOKENIZER.encode(word), START] for word in TEXT.split() * 3]).astype(np.uint16)
    data = Split("val", (ids,))
    causal = evaluate_split(decoder, TOKENIZER, data, FP32)
    assert causal.bytes < causal.tokens
    assert causal.bits_per_byte == pytest.approx(
        causal.loss * causal.tokens / math.log(2) / causal.bytes, rel=1e-12
    )
    objective = build(PrefixConfig(), is_encoder_decoder=False)
    prefix = evaluate_split(decoder, TOKENIZER, data, FP32, objective=objective)
    assert prefix.bytes < prefix.tokens
    assert prefix.bits_per_byte < 0.99 * prefix.loss * prefix.tokens / math.log(2) / prefix.bytes


def test_only_so_many_targets_and_always_the_same(encoder_decoder: EncoderDecoderLM) -> None:
    objective = build(SpanCorruptionConfig())
    scores = {
        evaluate_split(encoder_decoder, TOKENIZER, split(), FP32, objective=objective, max_tokens=11)
        for _ in range(2)
    }
    assert [score.tokens for score in scores] == [11]


def test_one_text_holds_no_pairs(encoder_decoder: EncoderDecoderLM) -> None:
    data = Split("text", (TOKENIZER.encode(TEXT),))
    with pytest.raises(DataError, match="text: was prepared as single texts"):
        evaluate_split(encoder_decoder, TOKENIZER, data, FP32, objective=build(PairedConfig()))
