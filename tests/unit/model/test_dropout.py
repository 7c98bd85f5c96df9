"""A rate that moves over a run: its values, what it drops, and that compiled code is built once for all of them."""

import pytest
import torch
from torch._dynamo.utils import counters

from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.attention import AttentionConfig
from pellucid.model.dropout import DropoutRate, drop, move_dropout

CPU = torch.device("cpu")
IDS = torch.arange(32).reshape(4, 8) % 16
SIZES = {"vocab_size": 16, "d_model": 8, "num_heads": 2, "max_seq_len": 8}


def decoder(dropout=0.0, attention_dropout=0.0):
    attention = AttentionConfig(dropout=attention_dropout)
    return DecoderConfig(**SIZES, num_layers=2, dropout=dropout, attention=attention).build(seed=0).train()


def rates_of(model):
    rates = {name: getattr(module, "dropout", None) for name, module in model.named_modules()}
    return {name: rate.rate for name, rate in rates.items() if isinstance(rate, DropoutRate)}


def states(model, seed=0):
    torch.manual_seed(seed)
    return model.hidden(IDS).states


@pytest.mark.parametrize(("progress", "rate"), [(0.0, 0.1), (0.25, 0.085), (0.5, 0.07), (1.0, 0.04)])
def test_a_rate_moves_linearly_with_progress(progress, rate):
    model = decoder(0.1)
    move_dropout(model, 0.04, 1.0)  # where it has been does not matter
    move_dropout(model, 0.04, progress)
    assert rates_of(model) == pytest.approx({"": rate, "blocks.0": rate, "blocks.1": rate})


def test_attention_dropout_moves_along_where_there_is_any():
    model = decoder(0.1, attention_dropout=0.3)
    move_dropout(model, 0.0, 0.5)
    assert rates_of(model)["blocks.1.attention"] == pytest.approx(0.15)
    assert "blocks.1.attention" not in rates_of(decoder(0.1))


def test_both_halves_of_an_encoder_decoder_move():
    model = EncoderDecoderConfig(
        **SIZES,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout=0.2,
        attention=AttentionConfig(dropout=0.1),
    ).build()
    move_dropout(model, 0.0, 1.0)
    decoding = (
        "decoder",
        "decoder.blocks.0",
        "decoder.blocks.0.attention",
        "decoder.blocks.0.cross_attention",
    )
    encoding = ("encoder", "encoder.blocks.0", "encoder.blocks.0.attention")
    assert rates_of(model) == dict.fromkeys((*encoding, *decoding), 0.0)


@pytest.mark.parametrize("attention_dropout", [0.0, 0.2])
def test_a_rate_that_has_moved_drops_as_a_constant_one(attention_dropout):
    moved, constant = decoder(0.1, 0.1 * bool(attention_dropout)), decoder(0.2, attention_dropout)
    move_dropout(moved, 0.3, 0.5)
    assert torch.equal(states(moved), states(constant))
    assert not torch.equal(states(moved), states(moved, seed=1))


def test_evaluation_drops_nothing():
    model = decoder(0.1, attention_dropout=0.1).eval()
    move_dropout(model, 0.9, 1.0)
    assert torch.equal(states(model), states(decoder()))


@pytest.mark.parametrize("rate", [0.3, torch.tensor(0.3)])
def test_what_stays_is_scaled_up_so_that_the_mean_stays(rate):
    torch.manual_seed(0)
    dropped = drop(torch.ones(100_000), rate)
    assert sorted(set(dropped.tolist())) == pytest.approx([0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def test_a_tensor_rate_keeps_the_dtype():
    assert drop(torch.ones(3, dtype=torch.bfloat16), torch.tensor(0.5)).dtype == torch.bfloat16


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # dynamo's own
def test_compiled_blocks_are_built_once_for_all_rates():
    model = decoder(0.5, attention_dropout=0.5)
    torch.compiler.reset()
    counters.clear()
    for block in model.all_blocks:
        block.compile(dynamic=False, backend="aot_eager")  # what is built anew is decided before
    seen = []
    for step in range(12):  # more than dynamo would build one function anew for
        move_dropout(model, 0.0, step / 11)
        seen.append(states(model))
        seen[-1].sum().backward()
    assert counters["stats"]["unique_graphs"] == 1  # which all blocks share
    assert not counters["recompiles"]
    torch.testing.assert_close(seen[-1], states(decoder()))
    assert not torch.equal(seen[0], seen[1])
