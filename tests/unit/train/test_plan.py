"""What is decided before the first update, on machines of all kinds: every one here is made up."""

import re
from dataclasses import replace

import pytest

from pellucid.config import from_tree, override, to_tree
from pellucid.errors import ConfigError
from pellucid.presets import run_preset
from pellucid.runtime.device import Device
from pellucid.train.config import RunConfig
from pellucid.train.plan import make_plan

PLAIN_CPU = Device(
    "cpu", "no GPU found", has_bf16=False, can_compile=False, compile_reason="no C++ compiler found"
)
BF16_CPU = replace(PLAIN_CPU, has_bf16=True, can_compile=True, compile_reason="kernels by g++")
MPS = Device("mps", "Apple GPU", has_bf16=False, can_compile=False, compile_reason="not dependable on MPS")
NEW_GPU = Device(
    "cuda", "a GPU is here", has_bf16=True, can_compile=True, compile_reason="CUDA kernels by Triton"
)
OLD_GPU = replace(NEW_GPU, has_bf16=False)

LONG = 4e8
"""FLOPs a token with which 100,000 updates of the debug preset are worth compiling for on a GPU too, and 40 nowhere."""


def plan(device=PLAIN_CPU, *words, vocab_size=257, windows_per_epoch=1000, flops=1e5):
    config = from_tree(RunConfig, override(to_tree(run_preset("debug")), words))
    return make_plan(
        config,
        device,
        vocab_size=vocab_size,
        start_id=256,
        windows_per_epoch=windows_per_epoch,
        training_flops_per_token=flops,
    )


# Precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected"),
    [(PLAIN_CPU, "fp32"), (BF16_CPU, "bf16"), (MPS, "fp32"), (NEW_GPU, "bf16"), (OLD_GPU, "fp16")],
)
def test_precision_follows_the_hardware(device, expected):
    made = plan(device)
    assert made.precision.name == made.config.train.precision == expected


@pytest.mark.parametrize("device", [PLAIN_CPU, BF16_CPU, NEW_GPU])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_precision_is_as_asked(device, wanted):
    assert plan(device, f"train.precision={wanted}").precision.name == wanted


@pytest.mark.parametrize(("device", "wanted"), [(BF16_CPU, "fp16"), (MPS, "fp16"), (MPS, "bf16")])
def test_a_precision_that_the_device_lacks_is_refused(device, wanted):
    with pytest.raises(ConfigError, match=r"^train\.precision: .*(needs a CUDA GPU|trains in float32)"):
        plan(device, f"train.precision={wanted}")


# Compiling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "words", "flops", "compiled", "why"),
    [
        (BF16_CPU, [], LONG, False, "a run this short"),
        (BF16_CPU, ["train.steps=100_000"], LONG, True, "kernels by g++"),
        (PLAIN_CPU, ["train.steps=100_000"], LONG, False, "no C++ compiler found"),
        (MPS, ["train.steps=100_000"], LONG, False, "not dependable"),
        (NEW_GPU, ["train.steps=100_000"], LONG, True, "Triton"),
        (BF16_CPU, ["train.steps=10_000"], LONG, True, "kernels by g++"),
        (NEW_GPU, ["train.steps=10_000"], LONG, False, "a run this short"),  # which it has done before long
        (BF16_CPU, ["train.max_seconds=119", "train.steps="], LONG, False, "under two minutes"),
        (BF16_CPU, ["train.max_seconds=119", "train.steps=100_000"], LONG, False, "under two minutes"),
        (BF16_CPU, ["train.max_seconds=120", "train.steps="], LONG, True, "kernels by g++"),
        (BF16_CPU, ["train.compile=true"], 1, True, "as asked"),
        (NEW_GPU, ["train.compile=false", "train.steps=100_000"], LONG, False, "as asked"),
    ],
)  # fmt: skip
def test_compiling_is_decided_by_length_and_by_what_is_there(device, words, flops, compiled, why):
    made = plan(device, *words, flops=flops)
    assert made.compiled is made.config.train.compile is compiled
    (reason,) = (line for line in made.reasons if line.startswith("torch.compile"))
    assert re.match(rf"torch\.compile {'on' if compiled else 'off'} \(", reason)
    assert why in reason


@pytest.mark.parametrize("device", [PLAIN_CPU, MPS])
def test_compiling_cannot_be_had_where_there_is_nothing_to_compile_with(device):
    with pytest.raises(ConfigError, match=rf"^train\.compile: .*{re.escape(device.compile_reason)}"):
        plan(device, "train.compile=true")


FAULT = "kernels cannot be built: fatal error: Python.h"
BROKEN_CPU = replace(BF16_CPU, compiler_fault=lambda device_type: f"{FAULT} ({device_type})")


def test_a_compiler_that_does_not_work_is_not_used_and_that_is_said():
    made = plan(BROKEN_CPU, "train.steps=100_000", flops=LONG)
    assert made.compiled is made.config.train.compile is False
    assert f"torch.compile off ({FAULT} (cpu))" in made.reasons


def test_a_compiler_that_does_not_work_is_an_error_where_it_was_asked_for():
    with pytest.raises(
        ConfigError, match=rf"^train\.compile: .*{re.escape(FAULT)}.*give train\.compile=false$"
    ):
        plan(BROKEN_CPU, "train.compile=true")


@pytest.mark.parametrize(
    "words",
    [[], ["train.compile=false", "train.steps=100_000"], ["train.max_seconds=119", "train.steps="],
     ["train.activation_checkpointing=selective", "train.steps=100_000"]],
)  # fmt: skip
def test_no_kernel_is_built_for_a_run_that_would_not_compile(words):
    def never(device_type):
        raise AssertionError(device_type)

    assert not plan(replace(BF16_CPU, compiler_fault=never), *words, flops=LONG).compiled


# Batches and length ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "batch_tokens", "micro_batch", "accumulation"),
    [(PLAIN_CPU, 1024, 16, 1), (PLAIN_CPU, 64 * 100, 50, 2), (PLAIN_CPU, 64 * 127, 1, 127), (MPS, 64 * 512, 256, 2),
     (NEW_GPU, 64 * 4096, 1024, 4)],
)  # fmt: skip
def test_the_micro_batch_is_the_largest_divisor_that_fits(device, batch_tokens, micro_batch, accumulation):
    made = plan(device, f"train.batch_tokens={batch_tokens}")
    assert (made.micro_batch, made.accumulation) == (micro_batch, accumulation)
    assert made.batch_windows * made.seq_len == batch_tokens
    assert made.config.train.micro_batch == micro_batch


def test_a_window_longer_than_the_usual_micro_batch_is_one_window():
    made = plan(PLAIN_CPU, "model.max_seq_len=8192", "train.batch_tokens=16384")
    assert (made.micro_batch, made.accumulation) == (1, 2)


def test_a_micro_batch_is_as_asked():
    made = plan(PLAIN_CPU, "train.micro_batch=2")
    assert (made.micro_batch, made.accumulation) == (2, 8)


def test_the_window_is_the_context_unless_it_is_named():
    assert plan(PLAIN_CPU).config.train.seq_len == 64
    assert plan(PLAIN_CPU, "train.seq_len=16").seq_len == 16


@pytest.mark.parametrize(("epochs", "steps"), [(1, 63), (0.5, 32), (2, 125), (1e-9, 1)])
def test_epochs_become_steps_rounded_up(epochs, steps):
    assert plan(PLAIN_CPU, "train.steps=", f"train.epochs={epochs}", windows_per_epoch=1000).steps == steps


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (1024, 1), (1025, 2), (10_240, 10)])
def test_tokens_become_steps_rounded_up(tokens, steps):
    assert plan(PLAIN_CPU, "train.steps=", f"train.tokens={tokens}").steps == steps


def test_a_warmup_in_tokens_becomes_steps_of_the_resolved_config():
    words = ("train.schedule.warmup_steps=", "train.schedule.warmup_tokens=3000")
    schedule = plan(PLAIN_CPU, *words).config.train.schedule
    assert (schedule.warmup_steps, schedule.warmup_tokens) == (3, None)


def test_a_run_by_time_has_no_number_of_steps():
    assert plan(PLAIN_CPU, "train.steps=", "train.max_seconds=5").steps is None


# Vocabulary ------------------------------------------------------------------------------------------


def test_the_vocabulary_is_the_tokenizers_unless_it_is_named():
    assert plan(vocab_size=300).config.model.vocab_size == 300
    assert plan(PLAIN_CPU, "model.vocab_size=320", vocab_size=300).config.model.vocab_size == 320


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused():
    with pytest.raises(
        ConfigError, match=r"model\.vocab_size \(256\) is smaller than the tokenizer's 257 ids"
    ):
        plan(PLAIN_CPU, "model.vocab_size=256")


# The whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "is_said"), [(100, True), (101, False)])
def test_a_warmup_as_long_as_the_run_is_said(steps, is_said):
    made = plan(PLAIN_CPU, f"train.steps={steps}", "train.schedule.warmup_steps=100")
    said = f"the warmup (100 steps) takes the whole run ({steps}): the rate only rises"
    assert (said in made.reasons) is is_said


def test_every_choice_has_its_reason():
    made = plan(BF16_CPU)
    assert made.reasons == (
        "device cpu (no GPU found)",
        "precision bf16 (this hardware multiplies bf16 natively)",
        "torch.compile off (a run this short does not repay it)",
        made.config.train.techniques.line,
        "short attention on",
        "batch 1,024 tokens = 1 x 16 windows of 64",
    )


@pytest.mark.parametrize("device", [PLAIN_CPU, BF16_CPU, MPS, NEW_GPU, OLD_GPU])
def test_the_resolved_config_plans_the_same_run_again(device):
    first = plan(device, "train.steps=100_000", flops=LONG)
    again = make_plan(
        first.config, device, vocab_size=257, start_id=256, windows_per_epoch=1, training_flops_per_token=1
    )
    assert again.config == first.config
    assert again.precision.name == first.precision.name
    assert (again.seq_len, again.micro_batch, again.accumulation, again.steps, again.compiled) == (
        first.seq_len,
        first.micro_batch,
        first.accumulation,
        first.steps,
        first.compiled,
    )


# Several processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "micro_batch", "accumulation", "said"),
    [(2, 4, 4, "2 x 4 x 4"), (4, 4, 2, "4 x 2 x 4"), (16, 2, 1, "16 x 1 x 2")],
)
def test_a_batch_is_dealt_out_to_processes(world, micro_batch, accumulation, said):
    alone = plan(PLAIN_CPU, "train.seq_len=32", "train.batch_tokens=1024", "train.micro_batch=4")
    shared = alone.shared_by(world)
    assert (shared.micro_batch, shared.accumulation) == (micro_batch, accumulation)
    assert (shared.batch_windows, shared.share_windows) == (alone.batch_windows, 32 // world)
    assert shared.config.train.micro_batch == micro_batch
    assert [line for line in shared.reasons if line.startswith("batch")] == [
        f"batch 1,024 tokens = {said} windows of 32 ({world} processes)"
    ]
    assert alone.shared_by(1) is alone


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    message = (
        r"1024\) is 32 windows of 32 tokens, which 3 processes .* start 1 or 2 or .* multiple of 3 x 32 = 96"
    )
    with pytest.raises(ConfigError, match=message):
        plan(PLAIN_CPU, "train.seq_len=32", "train.batch_tokens=1024").shared_by(3)


# TF32 ------------------------------------------------------------------------------------------------


def test_tf32_is_for_gpus_that_have_it():
    assert plan(NEW_GPU, "train.tf32=true").precision.tf32
    assert not plan(NEW_GPU).precision.tf32
    for device in (OLD_GPU, MPS, BF16_CPU):
        with pytest.raises(ConfigError, match=r"^train\.tf32: TF32 is a format of NVIDIA GPUs"):
            plan(device, "train.tf32=true")
