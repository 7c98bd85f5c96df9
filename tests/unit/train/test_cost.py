"""What `plan` says, against a model that is really built."""

import pytest

from pellucid.runtime.device import Device
from pellucid.train.cost import estimate_cost

CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")


def test_the_counts_are_those_of_the_built_model(tiny_config, workdir):
    config = tiny_config()
    cost = estimate_cost(config, CPU)
    model = config.model.model_copy(update={"vocab_size": 257}).build()
    parameters = sum(p.numel() for p in model.parameters())
    assert cost.parameters == parameters
    assert cost.non_embedding_parameters == parameters - 257 * 16
    assert (cost.weights_bytes, cost.gradients_bytes, cost.optimizer_bytes) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )
    assert cost.total_bytes == 16 * parameters + cost.activations_bytes
    assert (cost.vocab_size, cost.steps, cost.tokens) == (257, 8, 1024)
    assert cost.flops == 1024 * cost.flops_per_token
    assert list(workdir.iterdir()) == []


def test_recomputed_activations_take_less_memory(tiny_config):
    kept, recomputed = (
        estimate_cost(tiny_config("model.num_layers=4", f"train.activation_checkpointing={mode}"), CPU)
        for mode in ("none", "full")
    )
    assert recomputed.activations_bytes < kept.activations_bytes


def test_a_run_by_time_has_no_total(tiny_config):
    cost = estimate_cost(tiny_config("train.steps=", "train.max_seconds=5"), CPU)
    assert (cost.steps, cost.tokens, cost.flops) == (None, None, None)
    assert ("length", "by time") in cost.rows()


@pytest.mark.parametrize(
    "name", ["parameters", "vocabulary", "weights", "optimizer state", "memory in all", "FLOPs"]
)
def test_the_table_has_a_row_for_each(tiny_config, name):
    assert any(row == name and value for row, value in estimate_cost(tiny_config(), CPU).rows())
