"""What both families promise, with every member of every union, every option, and every two of them together."""

import itertools
import typing

import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.model.interface import Role

V = 29

pytestmark = pytest.mark.usefixtures("compiles_nothing")


@torch.no_grad()
def test_logits_have_shape_and_dtype_and_come_near_float64(case) -> None:
    ids = case.ids()
    expected = case.logits(case.build(), ids)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = case.build(dtype)
        hidden = model.hidden(ids, **case.source())
        logits = model.head(hidden.states)
        assert (hidden.states.shape, hidden.states.dtype) == ((2, 12, 16), dtype)
        assert (logits.shape, logits.dtype) == ((2, 12, V), dtype)
        assert torch.equal(model(*case.source().values(), ids), logits)
        if case.has_experts and dtype == torch.bfloat16:
            assert (
                logits.isfinite().all()
            )  # rounding sends some tokens to other experts: no tolerance covers that
        else:
            assert (logits - expected).std() <= 10 * torch.finfo(dtype).eps * expected.std()


def test_gradient_reaches_every_parameter(case) -> None:
    model = case.build()
    if not case.can_train:
        with pytest.raises(ValueError, match="'flex' has no backward pass on CPUs"):
            case.loss_and_gradients(model)
        return
    _, gradients = case.loss_and_gradients(model)
    attention, position = case.config.attention, case.config.position.kind
    last_bias = "key_norm.bias" if attention.qk_norm else "key.bias"
    for name, gradient in gradients.items():
        assert gradient is not None, name
        is_rotated = position == "rope" and "cross_attention" not in name
        if name.endswith(last_bias) and not is_rotated and attention.softcap is None:
            assert gradient.abs().max() < 1e-12, (
                name
            )  # the same for all scores of a query: softmax is blind to it
        else:
            assert gradient.abs().max() > 1e-6, name


@torch.no_grad()
def test_side_losses_are_sums_over_the_tokens_of_each_half(option) -> None:
    auxiliary = option.build().hidden(option.ids(), **option.source()).auxiliary
    assert bool(auxiliary) == option.has_experts
    halves = {"": 2 * 12, "encoder_": 2 * 7} if option.reads_source else {"": 2 * 12}
    if auxiliary:
        assert set(auxiliary) == {f"{half}{name}" for half in halves for name in ("moe_balance", "moe_z")}
    for name, (total, weight) in auxiliary.items():
        assert total.isfinite()
        assert weight == halves["encoder_" if name.startswith("encoder_") else ""]


@torch.no_grad()
def test_is_deterministic(option) -> None:
    model = option.build()
    assert torch.equal(option.logits(model, option.ids()), option.logits(model, option.ids()))


@torch.no_grad()
def test_is_causal(case) -> None:
    model, ids, attention = case.build(), case.ids(), case.config.attention
    before = case.logits(model, ids)
    for t in (1, 6, 11):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        after = case.logits(model, changed)
        if case.has_experts:
            torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        else:
            assert torch.equal(after[:, :t], before[:, :t])
        has_moved = (after - before).abs().amax(dim=-1) > 1e-6
        assert has_moved[:, t].all()
        if attention.window is None:
            assert has_moved[:, t:].all()
        elif attention.window_pattern == "L":
            beyond = t + 1 + 2 * (attention.window - 1)  # what two layers carry forward
            torch.testing.assert_close(after[:, beyond:], before[:, beyond:], rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_do_not_see_each_other(case) -> None:
    model, ids, source = case.build(), case.ids(3), case.source(3)
    together = case.logits(model, ids)
    for row in range(3):
        alone = case.logits(
            model, ids[row : row + 1], **{name: t[row : row + 1] for name, t in source.items()}
        )
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_state_dict_round_trip(option) -> None:
    model, other = option.build(), option.config.build(seed=1).double().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(option.logits(other, option.ids()), option.logits(model, option.ids()))


def test_dropout_falls_only_in_training(case) -> None:
    if not case.can_train:
        return
    model = case.build()
    still, _ = case.loss_and_gradients(model)
    assert torch.equal(case.loss_and_gradients(model)[0], still)
    has_dropout = bool(case.config.dropout or case.config.attention.dropout)
    training, _ = case.loss_and_gradients(model.train())
    assert torch.equal(training, still) != has_dropout
    assert torch.equal(case.loss_and_gradients(model)[0], training)  # the same draws


def test_equal_seeds_give_equal_weights(option) -> None:
    first, again, other = (option.config.build(seed=seed) for seed in (5, 5, 6))
    for name, role in first.parameter_roles().items():
        weights = first.get_parameter(name)
        assert torch.equal(weights, again.get_parameter(name)), name
        is_drawn = role not in ("gain", "bias")
        assert torch.equal(weights, other.get_parameter(name)) != is_drawn, name


def test_a_further_layer_leaves_other_initial_weights(option) -> None:
    shallow, deep = option.config.build(), option.with_layers(3).config.build()
    for name, role in shallow.parameter_roles().items():
        scale = (2 / 3) ** 0.5 if role == "residual_matrix" else 1.0  # 1 / sqrt(branches · layers)
        torch.testing.assert_close(deep.get_parameter(name), scale * shallow.get_parameter(name))


def test_every_parameter_has_a_role_that_fits_its_shape(option) -> None:
    config, model = option.config, option.config.build()
    roles = model.parameter_roles()
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert set(roles.values()) <= set(typing.get_args(Role))
    for name, role in roles.items():
        dimensions = model.get_parameter(name).dim()
        if role in ("gain", "bias"):
            assert dimensions == 1, name
        elif ".feed_forward." in name and option.has_experts:
            assert dimensions == (2 if "router" in name else 3), name
        else:
            assert dimensions == 2, name
    branches = 2 * 2 + 3 * 2 if option.reads_source else 2 * 2
    assert sum(role == "residual_matrix" for role in roles.values()) == branches
    assert ("head" in roles.values()) == (not config.tie_embeddings)
    tables = {name for name, role in roles.items() if role == "embedding"}
    is_shared = not option.reads_source or config.share_embeddings
    assert tables == {"embedding.table"} | (set() if is_shared else {"target_embedding.table"})
    places = [name for name in roles if name.split(".")[-2].endswith("position")]
    assert places == [name for name, role in roles.items() if role == "position"]


def test_meta_build_has_the_same_parameters_and_no_memory(option) -> None:
    with torch.device("meta"):
        model = option.config.build()
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    real = option.config.build().state_dict()
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in real.items()}


def test_a_model_built_on_meta_computes_the_same_once_it_has_the_weights(option) -> None:
    """Nothing but parameters may be needed: a tensor made when the model was built would have no values."""
    model, ids = option.build(), option.ids()
    with torch.device("meta"):
        empty = option.config.build().eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(option.logits(empty, ids), option.logits(model, ids))


def test_autocast_to_bf16_comes_near_and_gives_float32_gradients(pair) -> None:
    if not pair.can_train:
        return
    model = pair.build(torch.float32)
    exact, _ = pair.loss_and_gradients(pair.build())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = pair.loss_and_gradients(model)
    assert loss.isfinite()
    if not pair.has_experts:
        assert (loss / exact - 1).abs() < 0.05
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all(), name


@torch.no_grad()
def test_kernels_agree(pair) -> None:
    model, ids, results = pair.build(), pair.ids(), {}
    for kernel in ("auto", "reference", "sdpa", "flex"):
        try:
            other = pair.with_changes(attention={"kernel": kernel})
            other = other.config.build().double().eval()
        except ConfigError:
            continue
        other.load_state_dict(model.state_dict())
        results[kernel] = pair.logits(other, ids)
    assert {"auto", "reference"} < set(results) or pair.config.attention.softcap
    for kernel, logits in results.items():
        torch.testing.assert_close(logits, results["reference"], rtol=0, atol=1e-12, msg=kernel)


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_every_two_changes_that_go_together_meet_in_some_case(changes, family: str) -> None:
    """The covering set covers: checked apart from how it was found."""
    factors, trees = changes.factors[family], changes.pairs[family]
    assert len(factors) >= 19
    for one, other in itertools.combinations(factors, 2):
        for first, second in itertools.product(factors[one], factors[other]):
            if not changes.is_impossible(changes.laid(first, second)):
                assert any(changes.fits(first, tree) and changes.fits(second, tree) for tree in trees)


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_what_does_not_go_together_is_refused_by_both_names(changes, family: str) -> None:
    for one, other in changes.impossible:
        changes.case(family, one).config  # noqa: B018 - each is fine alone
        changes.case(family, other).config  # noqa: B018
        with pytest.raises(ConfigError) as caught:
            changes.case(family, changes.laid(one, other)).config  # noqa: B018
        for name in (*changes.names(one), *changes.names(other)):
            assert name in str(caught.value)
