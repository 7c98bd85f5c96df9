"""The first thing in a step that is not finite, found by watching every module."""

import math

import pytest
import torch

from pellucid.train.origin import Numbers, find_origin


@pytest.fixture
def spoil():
    """Put an infinite number into a parameter."""

    def put(model, name):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] = torch.inf

    return put


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("blocks.0.attention.query.weight", "blocks.0.attention.query"),
        ("blocks.1.feed_forward.down.weight", "blocks.1.feed_forward.down"),
        ("final_norm.gain", "final_norm"),
    ],
)
def test_the_innermost_module_whose_output_is_bad_is_named_with_what_went_in(
    make_updater, batch, spoil, parameter, module
):
    updater = make_updater()
    spoil(updater.model, parameter)
    origin = find_origin(updater, [batch], 0, compiled=False)
    assert (origin.kind, origin.name) == ("output", module)
    assert origin.module == type(updater.model.get_submodule(module)).__name__
    assert origin.input.not_finite == 0 < origin.numbers.not_finite
    assert origin.input.shape[:2] == origin.numbers.shape[:2] == (8, 8)


def test_a_bad_loss_of_good_states_is_the_loss(make_updater, batch):
    batch.weights[0, 0] = torch.nan
    origin = find_origin(make_updater(), [batch], 0, compiled=False)
    assert (origin.kind, origin.name, origin.numbers.not_finite) == ("loss", "", 1.0)


def test_a_bad_gradient_is_the_last_parameters_whose_gradient_is(make_updater, batch):
    updater = make_updater()
    for name in ("blocks.0.attention.query.weight", "blocks.1.attention.key.weight"):
        updater.model.get_parameter(name).register_hook(lambda gradient: gradient * torch.inf)
    origin = find_origin(updater, [batch], 0, compiled=False)
    assert (origin.kind, origin.name) == ("gradient", "blocks.1.attention.key.weight")


def test_a_later_micro_batch_is_looked_at_too(make_updater, batch, split):
    first, second = split(batch, 2)
    second.weights[0, 0] = torch.nan
    assert find_origin(make_updater(), [first, second], 0, compiled=False).kind == "loss"


def test_where_all_is_finite_nothing_is_found_and_nothing_has_changed(make_updater, batch, weights_of):
    updater = make_updater()
    before = weights_of(updater.model)
    updater.state.step = 7
    assert find_origin(updater, [batch], 6, compiled=False) is None
    assert updater.state.step == 7
    assert torch.equal(weights_of(updater.model), before)
    assert all(p.grad is None and not p._backward_hooks for p in updater.model.parameters())
    assert not any(module._forward_hooks for module in updater.model.modules())


def test_dropout_draws_what_it_drew_in_that_step(make_updater, batch):
    """A value that only this step's draws let through is what makes the difference."""
    updater, losses = make_updater(dropout=0.5), []
    gradients = type(updater).gradients
    recorded = make_updater(dropout=0.5)
    recorded.state.step = 3
    expected = gradients(recorded, [batch])
    updater.state.step = 9
    updater.model.final_norm.register_forward_hook(lambda *call: losses.append(call[2].sum()))
    find_origin(updater, [batch], 3, compiled=False)
    states = []
    recorded.model.final_norm.register_forward_hook(lambda *call: states.append(call[2].sum()))
    gradients(recorded, [batch])
    assert losses == states
    assert expected.isfinite()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own look at it
def test_compiled_blocks_are_watched_as_well(make_updater, batch, spoil):
    updater = make_updater()
    for block in updater.model.all_blocks:
        block.compile(backend="eager", dynamic=False)
    updater.gradients([batch])
    spoil(updater.model, "blocks.1.feed_forward.down.weight")
    assert find_origin(updater, [batch], 0, compiled=True).name == "blocks.1.feed_forward.down"


def test_numbers_say_what_is_in_a_tensor():
    tensor = torch.tensor([[1.5, -2.0, math.inf, math.nan]], dtype=torch.bfloat16)
    assert Numbers.of(tensor) == Numbers((1, 4), "bfloat16", -2.0, 1.5, 0.5)
    assert Numbers.of(torch.full((2,), math.nan)) == Numbers((2,), "float32", None, None, 1.0)


# Between modules -------------------------------------------------------------------------------------


@pytest.fixture
def enlarge():
    """Multiply parameters so far that all of them stay finite and what is computed from them does not."""

    def multiply(model, *names):
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).mul_(1e25)

    return multiply


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_scores_that_are_too_large_are_attentions_own(make_updater, batch, enlarge, recompute):
    updater = make_updater(recompute=recompute)
    enlarge(updater.model, *(f"blocks.1.attention.{name}.weight" for name in ("query", "key")))
    origin = find_origin(updater, [batch], 0, compiled=False)
    assert (origin.kind, origin.name, origin.module) == ("inside", "blocks.1.attention", "Attention")
    assert origin.input.not_finite == 0 < origin.numbers.not_finite


def test_a_sum_between_blocks_is_the_models_own(make_updater, batch):
    """What the first block gives is spoiled on its way to the second one."""
    updater = make_updater()
    updater.model.blocks[1].register_forward_pre_hook(
        lambda module, inputs: (inputs[0] * torch.inf, *inputs[1:])
    )
    origin = find_origin(updater, [batch], 0, compiled=False)
    assert (origin.kind, origin.name) == ("inside", "")
    assert origin.module == type(updater.model).__name__


def test_the_sum_of_a_block_and_a_part_of_it_is_the_blocks_own(make_updater, batch):
    updater = make_updater()
    with torch.no_grad():
        updater.model.embedding.table.fill_(3e38)
    updater.model.blocks[0].attention.register_forward_hook(lambda *call: torch.full_like(call[2], 3e38))
    origin = find_origin(updater, [batch], 0, compiled=False)
    assert (origin.kind, origin.name) == ("inside", "blocks.0")
