import pytest
import torch
from safetensors.torch import load, save

from pellucid.config import from_tree
from pellucid.errors import CheckpointError
from pellucid.interop.maps.naming import (
    AboveOne,
    Joined,
    NameTable,
    Transposed,
    Unstacked,
    VocabularyRows,
)
from pellucid.model import DecoderConfig, DecoderLM


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def meta(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.to("meta") for tensor in tensors]


def test_a_renamed_tensor_is_not_copied() -> None:
    ours = numbers(3, 4)
    theirs = Joined("a").to_theirs([ours], 0)
    (back,) = Joined("a").to_ours(theirs, meta(ours))
    assert theirs["a"] is ours
    assert back.data_ptr() == ours.data_ptr()


def test_several_tensors_are_joined_and_parted_at_their_own_sizes() -> None:
    parts = [numbers(6, 4), numbers(2, 4), numbers(3, 4)]
    for stored, wanted in ((Joined("a"), torch.cat(parts)), (Transposed("a"), torch.cat(parts).T)):
        theirs = stored.to_theirs(parts, 0)
        assert torch.equal(theirs["a"], wanted)
        for part, back in zip(parts, stored.to_ours(theirs, meta(*parts)), strict=True):
            assert torch.equal(back, part)


def test_rows_that_pad_a_vocabulary_are_cut_and_come_back_as_zeros() -> None:
    ours = numbers(8, 4)
    theirs = VocabularyRows("a").to_theirs([ours], 5)
    assert torch.equal(theirs["a"], ours[:5])
    (back,) = VocabularyRows("a").to_ours(theirs, meta(ours))
    assert torch.equal(back[:5], ours[:5])
    assert torch.equal(back[5:], torch.zeros(3, 4))


def test_a_stack_becomes_a_tensor_an_expert_in_order() -> None:
    ours = numbers(12, 2, 3)
    theirs = Unstacked("e.{expert}.w").to_theirs([ours], 0)
    assert list(theirs) == [f"e.{expert}.w" for expert in range(12)]
    assert torch.equal(theirs["e.11.w"], ours[11])
    (back,) = Unstacked("e.{expert}.w").to_ours(theirs, meta(ours))
    assert torch.equal(back, ours)


def test_a_gain_from_one_half_up_keeps_every_bit() -> None:
    ours = numbers(1000).abs() + 0.5
    theirs = AboveOne("a").to_theirs([ours], 0)
    assert torch.equal(theirs["a"], ours - 1)
    (back,) = AboveOne("a").to_ours(theirs, meta(ours))
    assert torch.equal(back, ours)


def test_distances_of_a_16_bit_file_keep_every_bit_in_float32() -> None:
    theirs = {"a": (0.05 * numbers(1000)).bfloat16()}
    (ours,) = AboveOne("a").to_ours(theirs, meta(theirs["a"]))
    assert ours.dtype == torch.float32
    assert torch.equal(AboveOne("a").to_theirs([ours], 0)["a"].bfloat16(), theirs["a"])


def table(**more) -> NameTable:
    return NameTable(
        names={
            "embedding.table": VocabularyRows("base.words"),
            "output.weight": VocabularyRows("head"),
            "final_norm.gain": "base.norm",
            "blocks.{layer}.attention_norm.gain": "base.{layer}.norm_1",
            "blocks.{layer}.feed_forward_norm.gain": "base.{layer}.norm_2",
            tuple(
                f"blocks.{{layer}}.attention.{part}.weight" for part in ("query", "key", "value", "output")
            ): "base.{layer}.attention",
            tuple(f"blocks.{{layer}}.feed_forward.{part}.weight" for part in ("gate", "up")): Transposed(
                "base.{layer}.mlp_in"
            ),
            "blocks.{layer}.feed_forward.down.weight": Transposed("base.{layer}.mlp_out"),
        },
        **({"copies": {"head": "base.words"}, "ignored": (".mask",), "prefix": "base."} | more),
    )


def config(**fields) -> DecoderConfig:
    tree = {"vocab_size": 11, "d_model": 8, "num_layers": 11, "num_heads": 2, "max_seq_len": 16}
    return from_tree(DecoderConfig, tree | {"feed_forward": {"kind": "swiglu", "d_ff": 12}} | fields)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return DecoderLM(config()).state_dict()


def test_both_directions_follow_from_one_table_through_a_file(weights) -> None:
    theirs = load(save(table().weights_to_hf(weights, config())))
    assert len(theirs) == 2 + 5 * 11
    assert torch.equal(theirs["base.10.mlp_out"], weights["blocks.10.feed_forward.down.weight"].T)
    back = table().weights_from_hf(theirs, config())
    assert list(back) == list(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    save(back)  # which wants contiguous tensors


def test_a_tensor_without_a_row_is_no_silent_loss(weights) -> None:
    lacking = NameTable({name: row for name, row in table().names.items() if name != "final_norm.gain"})
    with pytest.raises(KeyError, match=r"final_norm\.gain"):
        lacking.weights_to_hf(weights, config())


def test_a_prefix_may_be_left_out_by_all_names(weights) -> None:
    theirs = table().weights_to_hf(weights, config())
    bare = {name.removeprefix("base."): tensor for name, tensor in theirs.items()}
    assert table().weights_from_hf(bare, config()).keys() == weights.keys()
    some = {**theirs, "norm": theirs["base.norm"]}
    with pytest.raises(CheckpointError, match=r"unexpected: norm \[8\]"):
        table().weights_from_hf(some, config())


def test_what_holds_nothing_trained_is_left_out(weights) -> None:
    theirs = table().weights_to_hf(weights, config()) | {"base.3.mask": torch.ones(2, 2)}
    assert table().weights_from_hf(theirs, config()).keys() == weights.keys()


def test_a_copy_is_checked_and_left_out(weights) -> None:
    theirs = table().weights_to_hf(weights, config())
    theirs["head"] = theirs["base.words"].clone()
    assert table().weights_from_hf(theirs, config()).keys() == weights.keys()
    theirs["head"][0, 0] += 1
    with pytest.raises(
        CheckpointError, match=r"^head differs from base\.words although the config ties them"
    ):
        table().weights_from_hf(theirs, config())


def test_a_head_of_its_own_is_no_copy() -> None:
    free = config(tie_embeddings=False)
    weights = DecoderLM(free).state_dict()
    back = table().weights_from_hf(table().weights_to_hf(weights, free), free)
    assert torch.equal(back["output.weight"], weights["output.weight"])
    assert not torch.equal(back["output.weight"], back["embedding.table"])


def test_everything_that_does_not_fit_is_listed(weights) -> None:
    theirs = table().weights_to_hf(weights, config())
    del theirs["base.norm"]
    theirs["base.0.mlp_out"] = theirs["base.0.mlp_out"].T
    with pytest.raises(CheckpointError) as caught:
        table().weights_from_hf(theirs, config())
    assert str(caught.value).splitlines() == [
        "2 tensors do not fit the config:",
        "missing: base.norm [8]",
        "wrong shape: base.0.mlp_out is [8, 12], the config says [12, 8]",
    ]
