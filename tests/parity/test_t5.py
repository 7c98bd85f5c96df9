"""Our encoder-decoder equals transformers' T5ForConditionalGeneration (v1.1) on tiny random weights, both ways.

Sources and targets are longer than the largest distance that has a bucket of its own; some rows are padded.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from pellucid.config import from_tree
from pellucid.interop.maps import t5
from pellucid.model import EncoderDecoderConfig, EncoderDecoderLM
from pellucid.model.decoding import pad_left

VOCABULARY = 61
VARIANTS = {
    "as published": {},
    "heads of another size": {"head_dim": 6},
    "deeper encoder": {"num_encoder_layers": 3, "num_decoder_layers": 2},
    "another eps and start": {"norm": {"kind": "rmsnorm", "eps": 0.1}, "start_id": 9},
    "32 buckets": {"position": {"kind": "t5"}},
    "padded vocabulary": {"vocab_multiple": 16},
}
variants = pytest.mark.parametrize("variant", VARIANTS)
implementations = pytest.mark.parametrize("attention", ["eager", "sdpa"])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def config_of(variant: str) -> EncoderDecoderConfig:
    tree = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "num_heads": 4,
        "num_encoder_layers": 2,
        "num_decoder_layers": 3,
        "max_seq_len": 192,
        "norm": {"kind": "rmsnorm"},
        "position": {"kind": "t5", "num_buckets": 8, "max_distance": 20},
        "feed_forward": {"kind": "geglu", "d_ff": 40},
        "attention": {"scale": 1.0},
        "tie_embeddings": False,
        "start_id": 0,
    }
    return from_tree(EncoderDecoderConfig, tree | VARIANTS[variant])


def lengths_of(config: EncoderDecoderConfig) -> tuple[int, int]:
    """Of source and target, more than the position scheme's largest distance."""
    return config.position.max_distance + 20, config.position.max_distance + 10


def draw_ids(length: int, seed: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(seed))


def padding_of(length: int) -> Tensor:
    """1 where there is text: padded on the left, on the right, and nowhere."""
    mask = torch.ones(3, length, dtype=torch.long)
    mask[0, :5], mask[1, -7:] = 0, 0
    return mask


@pytest.fixture
def compare(float64_throughout):
    """Logits of both models are equal, for a whole source and for a padded one."""

    def check(ours: EncoderDecoderLM, theirs: T5ForConditionalGeneration) -> None:
        source_length, target_length = lengths_of(ours.config)
        source, target = draw_ids(source_length, 1), draw_ids(target_length, 2)
        mask = padding_of(source_length)
        with float64_throughout():
            whole = theirs(input_ids=source, decoder_input_ids=target).logits
            padded = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
        assert whole.std() > 0.1
        assert (whole - padded).abs().max() > 0.1
        assert (ours(source, target) - whole).abs().max() <= 1e-9
        hidden = ours.hidden(target, encoder_ids=source, encoder_documents=mask - 1)
        assert (ours.head(hidden.states) - padded).abs().max() <= 1e-9

    return check


@pytest.fixture
def build_theirs(float64_throughout, randomise):
    def build(config: EncoderDecoderConfig, attention: str = "eager") -> T5ForConditionalGeneration:
        """With a head of its own, as v1.1 has; transformers 5 ties it to the table until a file says otherwise."""
        with float64_throughout():
            theirs = AutoModelForSeq2SeqLM.from_config(
                T5Config(**t5.config_to_hf(config)), attn_implementation=attention, dtype=torch.float64
            )
            theirs.lm_head.weight = nn.Parameter(theirs.shared.weight.clone())
            randomise(theirs)
        return theirs.eval()

    return build


def build_ours(config: EncoderDecoderConfig, randomise) -> EncoderDecoderLM:
    ours = EncoderDecoderLM(config).double().eval()
    randomise(ours)
    for name, role in ours.parameter_roles().items():
        if role in ("embedding", "head"):
            ours.get_parameter(name)[VOCABULARY:] = 0  # rows that pad, as they are initialised
    return ours


def write_ours(ours: EncoderDecoderLM, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(t5.config_to_hf(ours.config)))
    weights = t5.weights_to_hf(ours.state_dict(), ours.config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_theirs(folder: Path, attention: str = "eager") -> T5ForConditionalGeneration:
    theirs, loading = T5ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float64, attn_implementation=attention, output_loading_info=True
    )
    assert not any(loading.values()), loading
    return theirs.eval()


@implementations
@variants
def test_their_weights_give_their_logits_in_our_model(
    variant: str, attention: str, tmp_path: Path, build_theirs, compare
) -> None:
    config, theirs = config_of(variant), build_theirs(config_of(variant), attention)
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    # How many rows pad our tables is no part of the model.
    assert t5.config_from_hf(written) == config.model_copy(update={"vocab_multiple": 1})
    ours = EncoderDecoderLM(config).double().eval()
    weights = load_file(tmp_path / "model.safetensors")
    ours.load_state_dict(t5.weights_from_hf(weights, config))
    compare(ours, theirs)
    back = t5.weights_to_hf(ours.state_dict(), config)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@implementations
@variants
def test_our_files_give_our_logits_in_their_model(
    variant: str, attention: str, tmp_path: Path, float64_throughout, randomise, compare
) -> None:
    ours = build_ours(config_of(variant), randomise)
    write_ours(ours, tmp_path)
    with float64_throughout():
        theirs = read_theirs(tmp_path, attention)
    compare(ours, theirs)


def test_a_tied_head_of_ours_is_theirs_without_scaling(
    tmp_path: Path, float64_throughout, randomise, compare
) -> None:
    config = config_of("as published").model_copy(update={"tie_embeddings": True})
    ours = build_ours(config, randomise)
    write_ours(ours, tmp_path)
    with float64_throughout():
        theirs = read_theirs(tmp_path)
    compare(ours, theirs)
    theirs.save_pretrained(tmp_path)  # which leaves the head out of the file
    weights = load_file(tmp_path / "model.safetensors")
    assert t5.HEAD not in weights
    written = t5.config_from_hf(json.loads((tmp_path / "config.json").read_text()))
    assert not written.tie_embeddings
    read = EncoderDecoderLM(written).double().eval()
    read.load_state_dict(t5.weights_from_hf(weights, written))
    compare(read, theirs)


@variants
def test_greedy_text_is_theirs(variant: str, build_theirs, float64_throughout) -> None:
    # Their cache has as many layers as their encoder (transformers 5.23), so the decoder must not be deeper.
    config = config_of(variant).model_copy(update={"num_encoder_layers": 3})
    theirs = build_theirs(config)
    ours = EncoderDecoderLM(config).double().eval()
    ours.load_state_dict(t5.weights_from_hf(theirs.state_dict(), config))
    sources = [draw_ids(length, length)[0] for length in (30, 7, 18)]
    padded, documents = pad_left(sources)
    with float64_throughout():
        expected = theirs.generate(
            padded, attention_mask=documents + 1, max_new_tokens=30, do_sample=False, num_beams=1
        )
    assert (expected[:, 0] == config.start_id).all()
    assert expected[:, 1:].unique().numel() > 3
    assert torch.equal(torch.stack(ours.generate(sources, 30)), expected[:, 1:])


def test_their_code_as_published_agrees_in_float32(build_theirs) -> None:
    config = config_of("32 buckets")
    theirs = build_theirs(config, "sdpa").float()
    ours = EncoderDecoderLM(config).eval()
    ours.load_state_dict(t5.weights_from_hf(theirs.state_dict(), config))
    source, target = (draw_ids(length, length) for length in lengths_of(config))
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    assert (ours(source, target) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_comparison_sees_every_wrong_weight(build_theirs, float64_throughout) -> None:
    config, theirs = config_of("as published"), build_theirs(config_of("as published"))
    source, target = (draw_ids(length, length) for length in lengths_of(config))
    with float64_throughout():
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
    weights = t5.weights_from_hf(theirs.state_dict(), config)
    ours = EncoderDecoderLM(config).double().eval()
    ours.load_state_dict(weights)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in ours.named_parameters():
        parameter.add_(1e-3 * torch.empty_like(parameter).normal_(generator=generator))
        assert (ours(source, target) - expected).abs().max() > 1e-8, name
        parameter.copy_(weights[name])
