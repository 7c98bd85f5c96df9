"""Whole models equal torch.nn's TransformerEncoder and TransformerDecoder on random weights, in float64.

Both norm placements, with torch's final norm where our stack has one; padded rows are compared at their text.
torch's modules stay in training mode, without dropout, so that their fused path for inference does not run.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM
from pellucid.model.attention import Attention
from pellucid.model.block import Block

VOCABULARY, D_MODEL, D_FF, HEADS, EPS = 37, 12, 20, 3, 1e-3
VARIANTS = {
    "post-norm": {"block": "post_norm"},
    "pre-norm": {"block": "pre_norm"},
    "post-norm, exact GELU": {"block": "post_norm", "feed_forward": "gelu"},
    "pre-norm, exact GELU": {"block": "pre_norm", "feed_forward": "gelu"},
    "post-norm, no biases": {"block": "post_norm", "bias": False},
    "pre-norm, no biases": {"block": "pre_norm", "bias": False},
}
ACTIVATIONS = {"relu": {}, "gelu": {"approximate": False}}

variants = pytest.mark.parametrize("variant", VARIANTS)
variants_and_kernels = pytest.mark.parametrize(
    ("variant", "kernel"),
    [*((variant, kernel) for variant in VARIANTS for kernel in ("auto", "reference")), ("pre-norm", "flex")],
)

# Rows of text with padding (-1) before, after, and nowhere.
SOURCE_DOCUMENTS = torch.tensor([[-1, -1, 0, 0, 0, 0, 0], [0] * 7, [0, 0, 0, 0, -1, -1, -1]])
TARGET_DOCUMENTS = torch.tensor([[0] * 6, [0, 0, 0, 0, -1, -1], [0, -1, -1, -1, -1, -1]])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def config_tree(variant: str, **fields: object) -> dict[str, object]:
    chosen = {"block": "pre_norm", "feed_forward": "relu", "bias": True} | VARIANTS[variant]
    activation = chosen["feed_forward"]
    return {
        "vocab_size": VOCABULARY,
        "d_model": D_MODEL,
        "num_heads": HEADS,
        "max_seq_len": 16,
        "block": chosen["block"],
        "norm": {"kind": "layernorm", "eps": EPS, "bias": chosen["bias"]},
        "position": {"kind": "none"},
        "feed_forward": {"kind": activation, "d_ff": D_FF, **ACTIVATIONS[activation]},
        "bias": chosen["bias"],
        **fields,
    }


def randomised(model: nn.Module) -> nn.Module:
    """Every bias and gain far from its initial value, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.double().named_parameters():
        noise = torch.empty_like(parameter).normal_(generator=generator)
        parameter.copy_(1 + 0.4 * noise if name.endswith("gain") else 0.4 * noise)
    return model.eval()


def decoder(variant: str, kernel: str = "auto") -> DecoderLM:
    tree = config_tree(variant, num_layers=3, attention={"kernel": kernel})
    return randomised(DecoderLM(from_tree(DecoderConfig, tree)))


def encoder_decoder(variant: str, kernel: str = "auto", **fields: object) -> EncoderDecoderLM:
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 3, "attention": {"kernel": kernel}}
    return randomised(
        EncoderDecoderLM(from_tree(EncoderDecoderConfig, config_tree(variant, **sizes, **fields)))
    )


# torch's modules with our weights ---------------------------------------------------------------------


def as_torch(stack: nn.Module, variant: str, *, reads_source: bool = False) -> nn.Module:
    """torch's encoder (or decoder) with the weights of our stack."""
    tree = config_tree(variant)
    kind = nn.TransformerDecoderLayer if reads_source else nn.TransformerEncoderLayer
    layer = kind(
        D_MODEL,
        HEADS,
        D_FF,
        dropout=0.0,
        activation=getattr(F, tree["feed_forward"]["kind"]),
        layer_norm_eps=EPS,
        batch_first=True,
        norm_first=tree["block"] == "pre_norm",
        bias=tree["bias"],
        dtype=torch.float64,
    )
    norm = None
    assert (stack.final_norm is None) == (tree["block"] == "post_norm")
    if stack.final_norm is not None:
        norm = nn.LayerNorm(D_MODEL, eps=EPS, bias=tree["bias"], dtype=torch.float64)
        copy_norm(norm, stack.final_norm)
    if reads_source:
        theirs = nn.TransformerDecoder(layer, len(stack.blocks), norm)
    else:
        theirs = nn.TransformerEncoder(layer, len(stack.blocks), norm, enable_nested_tensor=False)
    for mine, ours in zip(theirs.layers, stack.blocks, strict=True):
        copy_layer(mine, ours, reads_source)
    return theirs.train()


def copy_layer(theirs: nn.Module, ours: Block, reads_source: bool) -> None:
    copy_attention(theirs.self_attn, ours.attention)
    norms = [ours.attention_norm, ours.feed_forward_norm]
    if reads_source:
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        norms.insert(1, ours.cross_attention_norm)
    for number, norm in enumerate(norms, start=1):
        copy_norm(getattr(theirs, f"norm{number}"), norm)
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())


def copy_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    projections = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
    if theirs.in_proj_bias is not None:
        theirs.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def copy_norm(theirs: nn.LayerNorm, ours: nn.Module) -> None:
    theirs.weight.copy_(ours.gain)
    if theirs.bias is not None:
        theirs.bias.copy_(ours.bias)


def above_diagonal(length: int) -> Tensor:
    """torch's causal mask: True where a key may not be seen."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def draw_ids(length: int, seed: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    assert (ours - expected).abs().max() <= 1e-9


# Decoder ----------------------------------------------------------------------------------------------


@variants_and_kernels
def test_decoder_is_torchs_encoder_with_a_causal_mask(variant: str, kernel: str) -> None:
    model, ids = decoder(variant, kernel), draw_ids(9, seed=1)
    states = as_torch(model, variant)(F.embedding(ids, model.embedding.table), mask=above_diagonal(9))
    close(model.hidden(ids).states, states)
    close(model(ids), states @ model.embedding.table.T)


@variants_and_kernels
def test_padded_decoder_is_torchs_with_a_key_padding_mask(variant: str, kernel: str) -> None:
    model, ids = decoder(variant, kernel), draw_ids(6, seed=1)
    is_padding = TARGET_DOCUMENTS < 0
    states = as_torch(model, variant)(
        F.embedding(ids, model.embedding.table), mask=above_diagonal(6), src_key_padding_mask=is_padding
    )
    ours = model.hidden(ids, documents=TARGET_DOCUMENTS).states
    close(ours[~is_padding], states[~is_padding])


# Encoder-decoder --------------------------------------------------------------------------------------


def torch_states(
    model: EncoderDecoderLM,
    variant: str,
    source: Tensor,
    target: Tensor,
    source_padding: Tensor | None = None,
    target_padding: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The encoder's and the decoder's states, by torch's modules alone."""
    table = model.embedding.table
    target_table = table if model.config.share_embeddings else model.target_embedding.table
    memory = as_torch(model.encoder, variant)(F.embedding(source, table), src_key_padding_mask=source_padding)
    states = as_torch(model.decoder, variant, reads_source=True)(
        F.embedding(target, target_table),
        memory,
        tgt_mask=above_diagonal(target.shape[1]),
        tgt_key_padding_mask=target_padding,
        memory_key_padding_mask=source_padding,
    )
    return memory, states


@variants_and_kernels
def test_encoder_decoder_is_torchs(variant: str, kernel: str) -> None:
    model, source, target = encoder_decoder(variant, kernel), draw_ids(7, seed=1), draw_ids(6, seed=2)
    memory, states = torch_states(model, variant, source, target)
    close(model.encode(source).states, memory)
    close(model.hidden(target, encoder_ids=source).states, states)
    close(model(source, target), states @ model.embedding.table.T)


@variants
def test_tables_and_head_of_their_own(variant: str) -> None:
    model = encoder_decoder(variant, share_embeddings=False, tie_embeddings=False)
    source, target = draw_ids(7, seed=1), draw_ids(6, seed=2)
    _, states = torch_states(model, variant, source, target)
    close(model(source, target), states @ model.output.weight.T)


@variants
def test_a_tied_head_is_the_targets_table(variant: str) -> None:
    model = encoder_decoder(variant, share_embeddings=False)
    source, target = draw_ids(7, seed=1), draw_ids(6, seed=2)
    _, states = torch_states(model, variant, source, target)
    close(model(source, target), states @ model.target_embedding.table.T)


@variants_and_kernels
def test_padded_source_and_target_are_torchs_with_padding_masks(variant: str, kernel: str) -> None:
    model, source, target = encoder_decoder(variant, kernel), draw_ids(7, seed=1), draw_ids(6, seed=2)
    source_padding, target_padding = SOURCE_DOCUMENTS < 0, TARGET_DOCUMENTS < 0
    memory, states = torch_states(model, variant, source, target, source_padding, target_padding)
    encoded = model.encode(source, encoder_documents=SOURCE_DOCUMENTS).states
    close(encoded[~source_padding], memory[~source_padding])
    decoded = model.hidden(
        target, encoder_ids=source, encoder_documents=SOURCE_DOCUMENTS, documents=TARGET_DOCUMENTS
    ).states
    close(decoded[~target_padding], states[~target_padding])


@variants
def test_id_by_id_from_a_cache_is_torchs_whole_target(variant: str) -> None:
    model, source, target = encoder_decoder(variant), draw_ids(7, seed=1), draw_ids(6, seed=2)
    _, states = torch_states(model, variant, source, target, SOURCE_DOCUMENTS < 0)
    cache = model.start(source, 6, documents=SOURCE_DOCUMENTS).cache
    ours = [model.hidden(target[:, t : t + 1], cache=cache).states for t in range(6)]
    close(torch.cat(ours, dim=1), states)


# The comparison itself --------------------------------------------------------------------------------


@variants
def test_the_comparison_sees_every_weight(variant: str) -> None:
    model, source, target = encoder_decoder(variant), draw_ids(7, seed=1), draw_ids(6, seed=2)
    _, states = torch_states(model, variant, source, target)
    generator = torch.Generator().manual_seed(6)
    for name, parameter in model.named_parameters():
        if name.endswith("key.bias"):
            continue  # adds the same to all scores of a query, which softmax does not see
        original = parameter.clone()
        parameter.add_(1e-3 * torch.empty_like(parameter).normal_(generator=generator))
        assert (model.hidden(target, encoder_ids=source).states - states).abs().max() > 1e-8, name
        parameter.copy_(original)
