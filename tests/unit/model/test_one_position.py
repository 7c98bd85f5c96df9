"""All blocks as one native call give what the modules give, and stay away where they would not."""

import gc

import pytest
import torch
from torch import nn

from pellucid.model import DecoderConfig, EncoderDecoderConfig, native, one_position, stack
from pellucid.model.attention import AttentionConfig
from pellucid.model.decoding import decode
from pellucid.model.feedforward import GEGLUConfig, GELUConfig, MoEConfig, ReLU2Config, ReLUConfig
from pellucid.model.norms import LayerNormConfig, NoNormConfig
from pellucid.model.packed import pack
from pellucid.model.packed.layers import FEW_ROWS, FEW_ROWS_QUANTISED
from pellucid.model.positions import (
    AlibiPosition,
    AlibiPositionConfig,
    LearnedPositionConfig,
    NoPositionConfig,
    RotaryPositionConfig,
    T5PositionConfig,
)

pytestmark = pytest.mark.skipif(not native.is_available(), reason=f"native kernels: {native.built().reason}")

SIZES = {"vocab_size": 97, "d_model": 64, "num_heads": 4, "max_seq_len": 48}
KNOWN = {
    "the defaults": {},
    "grouped heads": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1},
    "heads of their own size": {"head_dim": 32},
    "layer norm, biases": {"norm": LayerNormConfig(), "bias": True},
    "layer norm without a bias": {"norm": LayerNormConfig(bias=False)},
    "no norm": {"norm": NoNormConfig()},
    "norms on both sides": {"block": "sandwich_norm"},
    "gelu by tanh": {"feed_forward": GELUConfig()},
    "gelu": {"feed_forward": GELUConfig(approximate=False)},
    "relu": {"feed_forward": ReLUConfig()},
    "relu squared": {"feed_forward": ReLU2Config()},
    "geglu": {"feed_forward": GEGLUConfig()},
    "learned positions": {"position": LearnedPositionConfig()},
    "half of a head turns": {"position": RotaryPositionConfig(fraction=0.5)},
    "ALiBi": {"position": AlibiPositionConfig()},
    "T5's bias": {"position": T5PositionConfig()},
    "no positions": {"position": NoPositionConfig()},
    "normalised heads": {"attention": AttentionConfig(qk_norm=True)},
    "windows": {"attention": AttentionConfig(window=5, window_pattern="LG")},
    "a soft cap": {"attention": AttentionConfig(softcap=2.0)},
    "a scale": {"attention": AttentionConfig(scale=0.3)},
    "another head": {"tie_embeddings": False, "logit_softcap": 3.0},
}
UNKNOWN = {
    "experts": {"feed_forward": MoEConfig(num_experts=2, top_k=1)},
    "parallel branches": {"block": "parallel"},
    "norms behind": {"block": "post_norm"},
    "another kernel": {"attention": AttentionConfig(kernel="reference")},
    "heads of 8": {"num_heads": 8},
}


@pytest.fixture
def calls(monkeypatch):
    """How often the native call was made; `calls.allowed = False` leaves all to the modules."""

    class Calls:
        count, allowed = 0, True

    def run(*args):
        result = one_position.run_blocks(*args) if Calls.allowed else None
        Calls.count += result is not None
        return result

    monkeypatch.setattr(stack, "run_blocks", run)
    Calls.count, Calls.allowed = 0, True
    return Calls


def decoder(**changes):
    """Weights as large as trained ones, biases too."""
    model = DecoderConfig(**{"num_layers": 3, **SIZES, **changes}).build(seed=0).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model


def written(model, prompt, count=12, documents=None, dtype=None):
    """Logits of every step [B, count, V], and the ids."""
    steps = []

    def pick(logits, _):
        steps.append(logits)
        return logits.argmax(dim=-1)

    ids = list(decode(model, prompt, count, pick, documents=documents, dtype=dtype))
    return torch.stack(steps, dim=1), torch.stack(ids, dim=1)


def ids(rows, length, seed=0):
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_equal_ways(model, calls, prompt, documents=None, dtype=None, rtol=1e-4, atol=1e-4):
    logits, chosen = written(model, prompt, documents=documents, dtype=dtype)
    steps = 11 if model.continues_prompt else 12
    assert calls.count == steps, "a decoder's first step reads its prompt"
    calls.allowed = False
    expected, same = written(model, prompt, documents=documents, dtype=dtype)
    assert calls.count == steps
    torch.testing.assert_close(logits, expected, rtol=rtol, atol=atol)
    assert torch.equal(chosen, same)


@pytest.mark.parametrize("changes", KNOWN.values(), ids=KNOWN)
def test_every_known_part_gives_what_its_module_gives(changes, calls):
    assert_equal_ways(decoder(**changes), calls, ids(2, 7))


@pytest.mark.parametrize("changes", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_runs_as_its_modules_say(changes, calls):
    model = decoder(**changes)
    logits, _ = written(model, ids(2, 7))
    assert calls.count == 0
    calls.allowed = False
    assert torch.equal(logits, written(model, ids(2, 7))[0])


@pytest.mark.parametrize("name", ["the defaults", "learned positions", "ALiBi", "windows"])
def test_padded_rows(name, calls):
    prompt = ids(3, 9)
    documents = torch.zeros_like(prompt)
    documents[1, :4] = documents[2, :8] = -1
    assert_equal_ways(decoder(**KNOWN[name]), calls, prompt, documents)


@pytest.mark.parametrize("form", ["fp32", "bf16", "fp16", "q8", "q4"])
@pytest.mark.parametrize("name", ["the defaults", "layer norm, biases"])
def test_packed_weights(form, name, calls):
    model = decoder(**KNOWN[name])
    pack(model, form)
    assert_equal_ways(
        model, calls, ids(2, 7), rtol=2e-2, atol=2e-2
    )  # a bf16 cache rounds what differs by rounding


def test_a_bf16_cache(calls):
    assert_equal_ways(decoder(), calls, ids(2, 7), dtype=torch.bfloat16, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": T5PositionConfig()},
        {"norm": LayerNormConfig(), "bias": True},
        {"block": "sandwich_norm"},
    ],
    ids=["the defaults", "T5's bias", "layer norm, biases", "norms on both sides"],
)
def test_a_source_is_attended_to(changes, calls):
    config = EncoderDecoderConfig(
        **SIZES, num_encoder_layers=2, num_decoder_layers=2, num_kv_heads=2, **changes
    )
    model = config.build(seed=0).eval()
    source = ids(2, 9)
    documents = torch.zeros_like(source)
    documents[1, :3] = -1
    assert_equal_ways(model, calls, source, documents)


def test_a_row_is_the_same_alone_and_in_a_batch(calls):
    model, prompt = decoder(), ids(3, 7)
    together, _ = written(model, prompt)
    for row in range(3):
        calls.count = 0
        alone, _ = written(model, prompt[row : row + 1])
        assert calls.count == 11
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "few"), [("bf16", FEW_ROWS), ("q8", FEW_ROWS_QUANTISED)])
def test_more_rows_than_few_go_by_the_modules(form, few, calls):
    model = decoder()
    pack(model, form)
    written(model, ids(few + 1, 3), count=2)
    assert calls.count == 0
    written(model, ids(few, 3), count=2)
    assert calls.count == 1


def test_gradients_and_training_go_by_the_modules(calls):
    model = decoder()
    with torch.no_grad():
        cache = model.new_cache(1)
        model.hidden(ids(1, 3), cache=cache)
    states = model.hidden(ids(1, 1), cache=cache).states
    assert calls.count == 0
    assert states.requires_grad


def test_dropout_counts_in_training_though_there_are_no_gradients(calls):
    model = decoder(dropout=0.5, attention=AttentionConfig(dropout=0.5)).train()
    with torch.no_grad():
        cache = model.new_cache(1)
        model.hidden(ids(1, 3), cache=cache)
        one = model.hidden(ids(1, 1), cache=cache).states
        cache.crop(3)
        other = model.hidden(ids(1, 1), cache=cache).states
    assert calls.count == 0
    assert not torch.equal(one, other)


def test_a_cache_that_another_model_uses_is_read_for_that_model(calls):
    first, second = decoder(), decoder(norm=LayerNormConfig())
    cache = first.new_cache(1)
    with torch.inference_mode():
        for model in (first, second):
            cache.crop(0)
            model.hidden(ids(1, 3), cache=cache)
            states = model.hidden(ids(1, 1), cache=cache).states
            calls.allowed = False
            cache.crop(3)
            torch.testing.assert_close(
                states, model.hidden(ids(1, 1), cache=cache).states, rtol=1e-4, atol=1e-4
            )
            calls.allowed = True
    assert calls.count == 2


def test_a_cache_of_another_shape_is_not_written_past(calls):
    model, cache = decoder(), decoder(num_layers=2).new_cache(1)
    with torch.inference_mode(), pytest.raises(IndexError):
        model.hidden(ids(1, 1), cache=cache)
    assert calls.count == 0


def test_a_method_that_was_replaced_is_called(calls):
    model, heard = decoder(), []
    feed_forward = model.blocks[0].feed_forward
    forward = feed_forward.forward
    feed_forward.forward = lambda x: heard.append(1) or forward(x)
    written(model, ids(1, 3), count=4)
    assert (calls.count, len(heard)) == (0, 4)


def test_a_bias_that_all_heads_share_is_spread_over_them(calls):
    class Nearer(AlibiPosition):
        def bias(self, query_positions, key_positions):
            return -0.1 * (query_positions[:, None] - key_positions)[None].float()

    model = decoder()
    model.position = Nearer(4, is_causal=True)
    assert_equal_ways(model, calls, ids(2, 7))


def test_a_hook_is_heard(calls):
    model, heard = decoder(), []
    model.blocks[1].register_forward_hook(lambda *_: heard.append(1))
    written(model, ids(1, 3), count=4)
    assert (calls.count, len(heard)) == (0, 4)


def test_a_part_of_ones_own_is_not_passed_over(calls):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = decoder()
    model.blocks[0].feed_forward.down = Doubled(model.blocks[0].feed_forward.down.in_features, 64, bias=False)
    written(model, ids(1, 3), count=4)
    assert calls.count == 0


def test_the_next_text_sees_changed_weights(calls):
    model = decoder()
    before, _ = written(model, ids(1, 3))
    with torch.no_grad():
        model.blocks[0].attention.query.weight = nn.Parameter(-model.blocks[0].attention.query.weight)
    after, _ = written(model, ids(1, 3))
    assert calls.count == 22
    assert not torch.allclose(before[:, 1:], after[:, 1:])
    calls.allowed = False
    torch.testing.assert_close(after, written(model, ids(1, 3))[0], rtol=1e-4, atol=1e-4)


def test_a_full_cache_is_refused_before_anything_is_written(calls):
    model = decoder()
    with torch.inference_mode():
        cache = model.new_cache(1, 3)
        model.hidden(ids(1, 3), cache=cache)
        kept = cache.keys.clone()
        with pytest.raises(ValueError, match="the cache holds 3 positions and 4 are needed"):
            model.hidden(ids(1, 1), cache=cache)
    assert torch.equal(cache.keys, kept)


def test_nothing_is_kept_when_the_text_is_done():
    model = decoder()
    written(model, ids(1, 3))
    gc.collect()
    assert len(one_position._PLANS) == 0
