"""How the hooks take positions, whichever scheme it is."""

import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree, members
from pellucid.model.positions import Position, PositionConfig

D, HEADS, E, MAX_SEQ_LEN = 16, 2, 8, 40

TREES = [
    *({"kind": kind} for kind in members(PositionConfig)),
    {"kind": "rope", "fraction": 0.5},
    {"kind": "rope", "scaling": {"kind": "linear", "factor": 4}},
    {"kind": "rope", "scaling": {"kind": "ntk", "factor": 4}},
    {"kind": "rope", "scaling": {"kind": "yarn", "factor": 4, "original_max_seq_len": 10}},
    {"kind": "rope", "scaling": {"kind": "llama3", "original_max_seq_len": 10}},
    {"kind": "t5", "num_buckets": 6, "max_distance": 9},
]


@pytest.fixture(params=[(tree, is_causal) for tree in TREES for is_causal in (True, False)], ids=str)
def settings(request) -> tuple[dict, bool]:
    return request.param


def build(settings: tuple[dict, bool]) -> Position:
    tree, is_causal = settings
    config = from_tree(members(PositionConfig)[tree["kind"]], tree)
    torch.manual_seed(0)
    return config.build(
        d_model=D, num_heads=HEADS, head_dim=E, max_seq_len=MAX_SEQ_LEN, is_causal=is_causal
    ).double()


def draw(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(5))


def apply(position: Position, x: Tensor, heads: Tensor, places: Tensor, keys: Tensor) -> dict[str, Tensor]:
    found = {"embed": position.embed(x, places), "rotate": position.rotate(heads, position.angles(places))}
    bias = position.bias(places, keys)
    return found if bias is None else found | {"bias": bias}


def run(position: Position, places: Tensor, keys: Tensor, hooks=apply) -> dict[str, Tensor]:
    """What each hook makes of two rows of as many tokens as there are places."""
    time = places.shape[-1]
    return hooks(position, draw(2, time, D), draw(2, HEADS, time, E), places, keys)


def test_a_row_each_is_the_same_as_all_rows_alike(settings) -> None:
    position, places, keys = build(settings), torch.arange(3, 9), torch.arange(12)
    alike = run(position, places, keys)
    each = run(position, places.expand(2, -1), keys.expand(2, -1))
    assert alike.keys() == each.keys()
    for hook, found in alike.items():
        assert found.dtype == each[hook].dtype == torch.float64
        torch.testing.assert_close(each[hook], found.expand_as(each[hook]), rtol=0, atol=0)


def test_each_row_is_placed_on_its_own(settings) -> None:
    position = build(settings)
    places = torch.tensor([[0, 1, 2, 0, 1], [7, 8, 9, 10, 11]])
    both = run(position, places, places)
    for row in (0, 1):
        alone = run(position, places[row], places[row])
        for hook, found in both.items():
            expected = alone[hook] if hook == "bias" else alone[hook][row]
            torch.testing.assert_close(found[row], expected, rtol=0, atol=0)


def test_positions_that_start_later_are_a_slice_of_all(settings) -> None:
    position, every = build(settings), torch.arange(20)
    x, heads = draw(2, 20, D), draw(2, HEADS, 20, E)
    later = every[13:]
    assert torch.equal(position.embed(x[:, 13:], later), position.embed(x, every)[:, 13:])
    turned = position.rotate(heads, position.angles(every))[:, :, 13:]
    assert torch.equal(position.rotate(heads[:, :, 13:], position.angles(later)), turned)
    bias = position.bias(every, every)
    if bias is not None:
        assert bias.shape == (HEADS, 20, 20)
        assert torch.equal(position.bias(later, every), bias[:, 13:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_come_near_float64(settings, dtype: torch.dtype) -> None:
    """Angles as the model hands them over: in float32. What comes out has x's own type."""
    places, position, narrow = torch.arange(30, 36), build(settings), build(settings).to(dtype)
    x, heads = draw(2, 6, D), draw(2, HEADS, 6, E)
    angles = narrow.angles(places)
    angles = None if angles is None else (angles[0].float(), angles[1].float())
    for found, expected in [
        (narrow.embed(x.to(dtype), places), position.embed(x, places)),
        (narrow.rotate(heads.to(dtype), angles), position.rotate(heads, position.angles(places))),
    ]:
        assert found.dtype == dtype
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error <= 4 * torch.finfo(dtype).eps


def test_works_on_the_meta_device(settings) -> None:
    with torch.device("meta"):
        position, places = build(settings), torch.arange(6)
        x, heads = torch.empty(2, 6, D), torch.empty(2, HEADS, 6, E)
        assert position.embed(x, places).shape == x.shape
        assert position.rotate(heads, position.angles(places)).shape == heads.shape
        bias = position.bias(places, places)
        assert bias is None or (bias.is_meta and bias.shape == (HEADS, 6, 6))


def test_a_build_on_meta_that_is_filled_later_gives_the_same(settings) -> None:
    """Nothing but the state dict is needed: no buffer is computed on construction and lost."""
    position = build(settings)
    with torch.device("meta"):
        late = build(settings)
    late.to_empty(device="cpu").load_state_dict(position.state_dict())
    places = torch.arange(6)
    for hook, expected in run(position, places, places).items():
        assert torch.equal(run(late, places, places)[hook], expected)


@pytest.mark.parametrize("rows", [(), (2,)])
def test_compiles_into_one_graph(settings, rows: tuple[int, ...]) -> None:
    position, places = build(settings), torch.arange(3, 9).expand(*rows, -1)
    torch.compiler.reset()
    compiled = torch.compile(apply, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected, found = run(position, places, places), run(position, places, places, compiled)
    for hook in expected:
        assert torch.equal(found[hook], expected[hook])


def test_what_a_scheme_does_not_use_stays_as_it_is() -> None:
    used = {
        "rope": {"rotate"},
        "learned": {"embed"},
        "sinusoidal": {"embed"},
        "alibi": {"bias"},
        "t5": {"bias"},
        "none": set(),
    }
    assert used.keys() == members(PositionConfig).keys()
    for kind, hooks in used.items():
        position, places = build(({"kind": kind}, True)), torch.arange(1, 7)
        x, heads = draw(2, 6, D), draw(2, HEADS, 6, E)
        found = {
            "embed": position.embed(x, places) is not x,
            "rotate": position.rotate(heads, position.angles(places)) is not heads,
            "bias": position.bias(places, places) is not None,
        }
        assert {hook for hook, is_used in found.items() if is_used} == hooks, kind
        assert (position.angles(places) is not None) == ("rotate" in hooks), kind
