"""One pass recorded by hooks: equal to any other pass, complete, counted, and without a trace left."""

import pytest
import torch

from pellucid.config import from_tree, members
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.feedforward import FeedForwardConfig
from pellucid.model.observe import observe
from pellucid.model.stats import count_flops

SIZES = {"vocab_size": 31, "d_model": 16, "num_heads": 4, "num_kv_heads": 2, "max_seq_len": 16}
IDS = torch.arange(7)[None]
SOURCE = torch.arange(5)[None] + 10


def decoder(**settings):
    return from_tree(DecoderConfig, {**SIZES, "num_layers": 2, **settings}).build()


def encoder_decoder(**settings):
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 2}
    return from_tree(EncoderDecoderConfig, {**SIZES, **layers, **settings}).build()


def test_what_is_observed_is_an_ordinary_pass():
    model, pair = decoder(), encoder_decoder()
    with torch.no_grad():
        assert torch.equal(observe(model, IDS).logits, model(IDS))
        assert torch.equal(observe(pair, SOURCE, IDS).logits, pair(SOURCE, IDS))


def test_every_module_that_runs_is_a_step_in_the_order_in_which_it_began():
    model = decoder()
    names = [step.name for step in observe(model, IDS).steps]
    assert names[:4] == ["", "embedding", "blocks.0", "blocks.0.attention_norm"]
    assert names[-1] == "final_norm"
    never_called = {"position", "blocks"}  # one is asked by its own hooks, the other is a list
    assert set(names) == {name for name, _ in model.named_modules()} - never_called


def test_a_step_has_what_went_in_and_what_came_out():
    model = decoder()
    observation = observe(model, IDS)
    assert torch.equal(observation.step("embedding").result, model.embedding.table[IDS])
    assert observation.step("blocks.1").input is observation.step("blocks.0").result
    attention = observation.step("blocks.0.attention")
    assert attention.input is observation.step("blocks.0.attention_norm").result
    assert attention.keywords["layer"] == 0
    assert attention.module is model.blocks[0].attention


def test_a_module_that_runs_twice_has_two_steps():
    observation = observe(encoder_decoder(), SOURCE, IDS)
    assert torch.equal(observation.step("embedding").input, SOURCE)
    assert torch.equal(observation.step("embedding", 1).input, IDS)
    assert observation.step("encoder").result.shape == (1, 5, 16)


def test_a_module_that_did_not_run_is_named():
    observation = observe(decoder(), IDS)
    assert "position" not in observation
    with pytest.raises(KeyError, match=r"position: did not run in this pass; these did: , embedding"):
        observation.step("position")


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "flex", "reference"])
def test_flops_are_those_that_the_shapes_say_whatever_the_kernel(kernel):
    model = decoder(attention={"kernel": kernel})
    assert observe(model, IDS).flops[""] == count_flops(model, 7).forward
    pair = encoder_decoder(attention={"kernel": kernel})
    assert observe(pair, SOURCE, IDS).flops[""] == count_flops(pair, 7, 5).forward
    assert {block.attention.kernel for block in model.all_blocks} == {kernel}


@pytest.mark.parametrize("kind", members(FeedForwardConfig))
@pytest.mark.parametrize("d_ff", [32, 18])  # the second is too odd for one grouped product of experts
def test_flops_of_every_feed_forward_layer_are_counted(kind, d_ff):
    model = decoder(feed_forward={"kind": kind, "d_ff": d_ff})
    assert observe(model, IDS).flops[""] == count_flops(model, 7).forward


def test_flops_are_told_by_module():
    flops = observe(decoder(), IDS).flops
    assert flops["blocks.0.attention.query"] == 2 * 7 * 16 * 16
    products = flops["blocks.0.attention"] - sum(
        flops[f"blocks.0.attention.{part}"] for part in ("query", "key", "value", "output")
    )
    assert products == 4 * 7 * 7 * 16
    assert flops["blocks.0"] == flops["blocks.0.attention"] + flops["blocks.0.feed_forward"]


def traces(model) -> list[object]:
    return [
        hook
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks
    ]


def test_nothing_is_left_behind():
    model = decoder(dropout=0.5).train()
    first, second = observe(model, IDS), observe(model, IDS)
    assert torch.equal(first.logits, second.logits)  # in evaluation mode: no dropout
    assert model.training
    assert traces(model) == []


def test_nothing_is_left_behind_by_a_pass_that_fails():
    model = decoder(attention={"kernel": "flex"})
    with pytest.raises(ValueError, match="max_seq_len"):
        observe(model, torch.zeros(1, 17, dtype=torch.int64))
    assert traces(model) == []
    assert model.blocks[0].attention.kernel == "flex"


def test_what_has_no_hooks_is_refused():
    with pytest.raises(TypeError, match=r"only an nn\.Module has hooks"):
        observe(object(), IDS)
