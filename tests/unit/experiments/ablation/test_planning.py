"""Budgets that are equal: counted on the models themselves."""

from __future__ import annotations

import pytest

from pellucid.errors import ConfigError
from pellucid.experiments.ablation import plan_ablation
from pellucid.experiments.ablation.planning import cell_config
from pellucid.report.ablation.record import AblationRecord
from pellucid.runtime.device import choose_device
from pellucid.train.cost import estimate_cost

FEED_FORWARD = {"model.feed_forward.kind": ("swiglu", "gelu", "relu2")}
CPU = choose_device("cpu")


def plan(
    vary: dict[str, tuple[str, ...]], *words: str, match: str = "steps", seeds: int = 2
) -> AblationRecord:
    return plan_ablation("debug", words, vary, seeds=seeds, match=match, device=CPU)  # type: ignore[arg-type]


def test_equal_steps_change_nothing_but_what_varies():
    record = plan(FEED_FORWARD, "train.lr=1e-3")
    assert [cell.steps for cell in record.cells] == [40, 40, 40]
    configs = [cell_config(record, cell) for cell in record.cells]
    assert [config.model.feed_forward.kind for config in configs] == ["swiglu", "gelu", "relu2"]  # type: ignore[union-attr]
    assert {config.train.lr for config in configs} == {1e-3}
    assert record.seeds == (0, 1)


def test_equal_flops_give_a_larger_model_fewer_updates():
    record = plan({"model.num_layers": ("2", "4")}, match="flops")
    small, large = record.cells
    assert large.steps < small.steps == 40
    one_update = large.flops / large.steps
    assert abs(large.flops - small.flops) <= one_update / 2
    assert estimate_cost(cell_config(record, large), CPU).flops == large.flops


def test_equal_parameters_change_the_width():
    """By default GELU has 256 x 2 and SwiGLU 192 x 3 matrices of 64: 12 % fewer, which its width makes up for."""
    apart, equal = plan(FEED_FORWARD), plan(FEED_FORWARD, match="params")
    swiglu, gelu, _ = apart.cells
    assert abs(gelu.parameters - swiglu.parameters) > 1000
    assert len({cell.parameters for cell in equal.cells}) == 1
    assert "model.feed_forward.d_ff=288" in equal.cells[1].overrides
    assert estimate_cost(cell_config(equal, equal.cells[1]), CPU).parameters == swiglu.parameters


def test_parameters_that_cannot_be_made_equal_are_said():
    with pytest.raises(ConfigError, match=r"cell d_model-256.*match flops or steps"):
        plan({"model.d_model": ("64", "256")}, match="params")
    with pytest.raises(ConfigError, match=r"d_ff, which varies here"):
        plan({"model.feed_forward.d_ff": ("64", "128")}, match="params")


def test_equal_time_needs_to_know_how_long_and_nothing_else_ends_a_run():
    with pytest.raises(ConfigError, match=r"train.max_seconds=SECONDS"):
        plan(FEED_FORWARD, match="time")
    record = plan(FEED_FORWARD, "train.max_seconds=5", match="time")  # the preset's 40 steps are taken out
    assert [(cell.steps, cell.flops, cell.max_seconds) for cell in record.cells] == [(None, None, 5.0)] * 3


@pytest.mark.parametrize("match", ["flops", "steps", "params"])
def test_a_clock_that_may_end_a_run_early_is_no_equal_budget(match: str):
    with pytest.raises(ConfigError, match=r"train.max_seconds may end a run before the others"):
        plan(FEED_FORWARD, "train.max_seconds=5", match=match)


def test_an_override_below_a_varied_kind_is_kept():
    record = plan({"train.optimizer.kind": ("adamw", "muon")}, "train.optimizer.beta2=0.9")
    assert [cell_config(record, cell).train.optimizer.beta2 for cell in record.cells] == [0.9, 0.9]  # type: ignore[union-attr]


def test_the_preset_itself_can_vary():
    vary = {"preset": ("debug", "shakespeare-char")}
    record = plan_ablation(
        "debug", ["train.steps=7", "train.max_seconds="], vary, seeds=1, match="steps", device=CPU
    )
    assert [cell_config(record, cell).run.name for cell in record.cells] == ["debug", "shakespeare-char"]
    assert [cell.steps for cell in record.cells] == [7, 7]


@pytest.mark.parametrize(
    ("vary", "words", "said"),
    [
        (
            {"model.norm.kind": ("rmsnorm", "layernom")},
            (),
            r"cell layernom: model.norm.kind.*did you mean 'layernorm'",
        ),
        ({"train.seed": ("0", "1")}, (), r"--seeds says how many"),
        (FEED_FORWARD, ("train.seed=3",), r"--seeds says how many"),
    ],
)
def test_faults_name_the_cell_or_the_way_out(
    vary: dict[str, tuple[str, ...]], words: tuple[str, ...], said: str
):
    with pytest.raises(ConfigError, match=said):
        plan(vary, *words)
