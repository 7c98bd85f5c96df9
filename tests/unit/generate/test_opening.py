"""Models opened to write with: the format that is chosen, and quantised weights that are kept."""

import os

import pytest
import torch

from pellucid import checkpoint, tokenizers
from pellucid.checkpoint import Contents
from pellucid.config import to_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.experiments.quantising import ELSEWHERE, quantising_cost
from pellucid.generate import opening
from pellucid.generate.opening import conversion_file, open_writer
from pellucid.model import DecoderConfig, native
from pellucid.model.packed import PackedLinear, packed_tensors
from pellucid.runtime.device import choose_device

CPU = choose_device("cpu")
FORMS = {"q8": 8.5, "q4": 4.5}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def saved(tmp_path):
    def save(name="checkpoint", seed=0, damage=None):
        config = DecoderConfig(vocab_size=257, d_model=64, num_heads=2, num_layers=2, max_seq_len=32)
        model = config.build(seed=seed)
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        if damage is not None:
            weights[damage][0, 0] = float("nan")
        contents = Contents({"model": to_tree(config)}, weights, tokenizers.build("byte"))
        checkpoint.save(tmp_path / name, contents)
        return tmp_path / name

    return save


@pytest.mark.parametrize("form", FORMS)
def test_a_kept_conversion_is_read_again_to_the_bit(saved, form, monkeypatch):
    path = saved()
    first = open_writer(path, CPU, quantize=form)
    assert (first.form, conversion_file(path, form).is_file()) == (form, True)
    monkeypatch.setattr("pellucid.model.packed.layers.quantise", lambda *_: pytest.fail("computed again"))
    again = open_writer(path, CPU, quantize=form)
    pairs = zip(
        packed_tensors(first.loaded.model).items(), packed_tensors(again.loaded.model).items(), strict=True
    )
    assert all(name == same and torch.equal(one, other) for (name, one), (same, other) in pairs)
    assert first.bytes == again.bytes


@pytest.mark.parametrize("damage", ["cut", "of another layout", "no file of ours"])
def test_a_damaged_conversion_is_made_anew(saved, damage):
    path = saved()
    good = packed_tensors(open_writer(path, CPU, quantize="q8").loaded.model)
    file = conversion_file(path, "q8")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "no file of ours":
        file.write_bytes(b"text")
    else:
        open_writer(path, CPU, quantize="q4")
        conversion_file(path, "q4").replace(file)
    after = packed_tensors(open_writer(path, CPU, quantize="q8").loaded.model)
    assert all(torch.equal(good[name], after[name]) for name in good)


def test_a_kept_conversion_of_somebody_elses_is_read(saved, monkeypatch):
    path = saved()
    open_writer(path, CPU, quantize="q8")

    def refused(*_):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(opening.os, "utime", refused)
    assert open_writer(path, CPU, quantize="q8").form == "q8"


def test_only_the_newest_conversions_are_kept(saved, monkeypatch):
    monkeypatch.setattr(opening, "_MOST_CONVERSIONS", 2)
    paths = [saved(f"c{number}", seed=number) for number in range(3)]
    for number, path in enumerate(paths):
        open_writer(path, CPU, quantize="q4")
        os.utime(conversion_file(path, "q4"), (number, number))
    assert [conversion_file(path, "q4").exists() for path in paths] == [False, True, True]


def test_where_nothing_can_be_kept_the_model_still_opens(saved, cache):
    cache.write_text("a file where a folder should be", encoding="utf-8")
    assert open_writer(saved(), CPU, quantize="q8").form == "q8"


def test_a_number_format_and_quantised_weights_exclude_each_other(saved):
    with pytest.raises(ConfigError, match="--dtype bf16 and --quantize q8 exclude each other"):
        open_writer(saved(), CPU, "bf16", "q8")


def test_numbers_that_are_not_finite_are_not_hidden(saved):
    path = saved(damage="blocks.1.feed_forward.up.weight")
    with pytest.raises(
        CheckpointError, match=r"blocks\.1\.feed_forward\.up\.weight has numbers that are not finite"
    ):
        open_writer(path, CPU, quantize="q4")


def test_a_small_model_is_written_with_as_it_was_saved(saved):
    writer = open_writer(saved(), CPU)
    assert writer.form == "fp32"
    assert (
        any(isinstance(module, PackedLinear) for module in writer.loaded.model.modules())
        == native.is_available()
    )


def test_without_kernels_it_says_that_torch_is_slower(saved, monkeypatch):
    monkeypatch.setattr(native, "_library", lambda: None)
    assert "torch, which computes q4 back for every token" in str(open_writer(saved(), CPU, quantize="q4"))


def test_what_quantising_costs_is_measured_on_other_text_where_the_data_is_away(saved):
    path = saved()
    writer = open_writer(path, CPU, quantize="q4")
    cost = quantising_cost(path, writer, "q4", CPU)
    assert (cost.data, cost.tokens) == (ELSEWHERE, 8192)
    assert 0 < abs(cost.relative) < 0.05
    assert not conversion_file(path, "q4").with_suffix(".json").exists(), "its own data may come back"
