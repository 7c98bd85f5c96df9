"""Source and target: who sees what, what is cached, how a target is written."""

import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.model import EncoderDecoderConfig, EncoderDecoderLM
from pellucid.model.decoding import decode, pad_left

VOCABULARY, CONTEXT = 23, 16
TREE = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "max_seq_len": CONTEXT,
    "start_id": 2,
}
POSITIONS = ["rope", "learned", "t5", "sinusoidal", "alibi", "none"]
positions = pytest.mark.parametrize("position", POSITIONS)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def build(position: str = "rope", **fields: object) -> EncoderDecoderLM:
    """Weights drawn wide, so that every part matters and greedy text is not one id repeated."""
    tree = TREE | {"position": {"kind": position}} | fields
    model = EncoderDecoderLM(from_tree(EncoderDecoderConfig, tree)).double().eval()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        parameter.normal_(generator=torch.Generator().manual_seed(number), std=0.5)
        if name.endswith("gain"):
            parameter.add_(1)
    return model


def draw_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


def changed(ids: Tensor, place: int) -> Tensor:
    other = ids.clone()
    other[:, place] = (other[:, place] + 1) % VOCABULARY
    return other


def differs(one: Tensor, other: Tensor) -> Tensor:
    """Places at which some feature of each row is another."""
    return ((one - other).abs().amax(dim=-1) > 1e-9).all(dim=0)


# Who sees what ----------------------------------------------------------------------------------------


@positions
@pytest.mark.parametrize("place", [0, 3, 6])
def test_the_source_is_read_in_both_directions_and_the_whole_of_it_by_every_target_id(
    position: str, place: int
) -> None:
    model, source, target = build(position), draw_ids(2, 7), draw_ids(2, 5, seed=1)
    other = changed(source, place)
    assert differs(model.encode(source).states, model.encode(other).states).all()
    assert differs(model(source, target), model(other, target)).all()


@positions
@pytest.mark.parametrize("place", [0, 2, 4])
def test_the_target_is_read_forwards(position: str, place: int) -> None:
    model, source, target = build(position), draw_ids(2, 7), draw_ids(2, 5, seed=1)
    before, after = model(source, target), model(source, changed(target, place))
    assert torch.equal(before[:, :place], after[:, :place])
    assert differs(before, after)[place:].all()


@positions
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(position: str, side: str) -> None:
    model, source, target = build(position), draw_ids(2, 7), draw_ids(2, 5, seed=1)
    expected = model(source, target)

    def padded(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        noise, nothing = draw_ids(2, count, seed=7), torch.full((2, count), -1)
        parts = [(noise, nothing), (ids, torch.zeros_like(ids))]
        parts = parts if side == "left" else parts[::-1]
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)

    encoder_ids, encoder_documents = padded(source, 3)
    input_ids, documents = padded(target, 2)
    hidden = model.hidden(
        input_ids, encoder_ids=encoder_ids, encoder_documents=encoder_documents, documents=documents
    )
    close(model.head(hidden.states[:, 2:] if side == "left" else hidden.states[:, :5]), expected)
    alone = model.hidden(target, encoder_ids=encoder_ids, encoder_documents=encoder_documents)
    close(model.head(alone.states), expected)


@positions
def test_packed_pairs_are_the_pairs_alone(position: str) -> None:
    model = build(position)
    sources, targets = (
        [draw_ids(1, n, seed=n) for n in (4, 3, 6)],
        [draw_ids(1, n, seed=n) for n in (5, 2, 3)],
    )

    def packed(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        numbers = [torch.full_like(part, document) for document, part in enumerate(parts)]
        return torch.cat(parts, dim=1), torch.cat(numbers, dim=1)

    encoder_ids, encoder_documents = packed(sources)
    input_ids, documents = packed(targets)
    together = model.hidden(
        input_ids, encoder_ids=encoder_ids, encoder_documents=encoder_documents, documents=documents
    ).states
    alone = [
        model.hidden(target, encoder_ids=source).states
        for source, target in zip(sources, targets, strict=True)
    ]
    close(together, torch.cat(alone, dim=1))


def test_a_target_whose_source_is_nothing_but_padding_stays_finite() -> None:
    model = build()
    states = model.hidden(
        draw_ids(2, 5), encoder_ids=draw_ids(2, 4), encoder_documents=torch.tensor([[-1] * 4, [0] * 4])
    ).states
    assert states.isfinite().all()


# The cache --------------------------------------------------------------------------------------------


@positions
@pytest.mark.parametrize("chunks", [[9], [4, 5], [1] * 9, [3, 1, 5]], ids=str)
@pytest.mark.parametrize("is_padded", [False, True])
def test_cached_logits_equal_uncached(position: str, chunks: list[int], is_padded: bool) -> None:
    model, source, target = build(position), draw_ids(3, 7), draw_ids(3, 9, seed=1)
    documents = torch.tensor([[-1, -1, 0, 0, 0, 0, 0], [0] * 7, [0] * 5 + [-1] * 2]) if is_padded else None
    expected = model.hidden(target, encoder_ids=source, encoder_documents=documents).states
    from_start = model.start(source, 9, documents=documents).cache
    with_ids = model.new_cache(3)
    pieces: list[Tensor] = []
    for number, piece in enumerate(target.split(chunks, dim=1)):
        pieces.append(model.hidden(piece, cache=from_start).states)
        given = {"encoder_ids": source, "encoder_documents": documents} if number == 0 else {}
        assert torch.equal(model.hidden(piece, cache=with_ids, **given).states, pieces[-1])
    close(torch.cat(pieces, dim=1), expected)


def test_keys_and_values_of_the_source_are_computed_once() -> None:
    model, counts = build(), {"encoder": 0, "cross keys": 0, "cross queries": 0, "self keys": 0}

    def count(what: str):
        def add(*_: object) -> None:
            counts[what] += 1

        return add

    model.encoder.register_forward_hook(count("encoder"))
    for block in model.decoder.blocks:
        block.cross_attention.key.register_forward_hook(count("cross keys"))
        block.cross_attention.query.register_forward_hook(count("cross queries"))
        block.attention.key.register_forward_hook(count("self keys"))
    model.generate(draw_ids(2, 6), 8)
    assert counts == {"encoder": 1, "cross keys": 3, "cross queries": 3 * 8, "self keys": 3 * 8}


def test_a_cache_with_its_source_has_the_stated_shapes() -> None:
    model, source = build(), draw_ids(2, 6)
    start = model.start(source, 5, dtype=torch.float32)
    assert start.ids.tolist() == [[2], [2]]
    assert start.documents is None
    assert start.cache.keys.shape == (3, 2, 2, 6, 4)  # the first id and 5 new ones
    assert start.cache.cross.keys.shape == start.cache.cross.values.shape == (3, 2, 2, 6, 4)
    assert start.cache.keys.dtype == start.cache.cross.keys.dtype == torch.float32
    assert model.start(source, 500).cache.max_length == CONTEXT


def test_a_target_without_a_source_says_what_to_give() -> None:
    model, message = build(), "a target needs its source: give encoder_ids, or a cache that has read it"
    with pytest.raises(ValueError, match=message):
        model.hidden(draw_ids(1, 3))
    with pytest.raises(ValueError, match=message):
        model.hidden(draw_ids(1, 3), cache=model.new_cache(1))


def test_a_source_longer_than_max_seq_len_is_refused() -> None:
    with pytest.raises(ValueError, match=r"17 positions of the source are more than max_seq_len \(16\)"):
        build()(draw_ids(1, 17), draw_ids(1, 3))


# Writing ----------------------------------------------------------------------------------------------


def slow_greedy(model: EncoderDecoderLM, source: Tensor, max_new_tokens: int) -> Tensor:
    """Without a cache; a target that does not fit is cut to its newest half context."""
    if source.shape[1] > CONTEXT:
        source = source[:, -CONTEXT // 2 :]
    ids = read = torch.full_like(source[:, :1], model.start_id)
    for _ in range(max_new_tokens):
        if read.shape[1] > CONTEXT:
            read = read[:, -CONTEXT // 2 :]
        new = model(source, read)[:, -1].argmax(dim=-1, keepdim=True)
        ids, read = torch.cat((ids, new), dim=1), torch.cat((read, new), dim=1)
    return ids[:, 1:]


@positions
@pytest.mark.parametrize("length", [1, 16, 17])
def test_greedy_writing_is_the_argmax_of_uncached_logits(position: str, length: int) -> None:
    model, source = build(position, tie_embeddings=False), draw_ids(2, length)
    ids = model.generate(source, 20)
    assert torch.equal(ids, slow_greedy(model, source, 20))
    assert ids.unique().numel() > 2


@positions
def test_sources_of_unequal_lengths_are_answered_as_each_alone(position: str) -> None:
    model = build(position, tie_embeddings=False)
    sources = [draw_ids(1, n, seed=n)[0] for n in (1, 7, 4)]
    together = model.generate(sources, 12)
    for source, ids in zip(sources, together, strict=True):
        assert torch.equal(ids, model.generate(source, 12))
    padded, documents = pad_left(sources)
    streamed = decode(model, padded, 12, lambda logits, _: logits.argmax(dim=-1), documents=documents)
    assert torch.equal(torch.stack(list(streamed), dim=1), torch.stack(together))


def test_a_target_ends_with_the_stop_id() -> None:
    model, source = build(tie_embeddings=False), draw_ids(2, 6)
    free = model.generate(source, 12)
    stop_id = int(free[0, 3])
    assert stop_id not in free[0, :3]
    stopped = model.generate(source[:1], 12, stop_id=stop_id)
    assert torch.equal(stopped, free[:1, :4])


# The config -------------------------------------------------------------------------------------------


def test_the_state_dict_has_the_stated_names() -> None:
    names = set(build("t5", share_embeddings=False, tie_embeddings=False, block="sandwich_norm").state_dict())
    assert {"embedding.table", "target_embedding.table", "output.weight"} <= names
    for half, depth in (("encoder", 2), ("decoder", 3)):
        assert {f"{half}.position.table", f"{half}.final_norm.gain"} <= names
        assert f"{half}.blocks.{depth - 1}.attention.query.weight" in names
        assert f"{half}.blocks.{depth}.attention.query.weight" not in names
    cross = {name.split(".")[3] for name in names if "cross" in name}
    assert cross == {"cross_attention", "cross_attention_norm", "cross_attention_out_norm"}
    assert not any("cross" in name for name in names if name.startswith("encoder."))


def test_shared_embeddings_are_one_table() -> None:
    assert not any("target_embedding" in name for name in build().state_dict())


@pytest.mark.parametrize(("start_id", "first"), [(None, 0), (0, 0), (5, 5)])
def test_a_target_begins_after_start_id(start_id: int | None, first: int) -> None:
    model = build(start_id=start_id)
    assert model.start_id == first
    assert model.start(draw_ids(1, 4), 3).ids.tolist() == [[first]]


def test_a_start_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start_id \(23\) is no id of a vocabulary of vocab_size 23"):
        from_tree(EncoderDecoderConfig, TREE | {"start_id": 23})


def test_side_losses_of_both_halves_are_told_apart() -> None:
    moe = {"kind": "moe", "num_experts": 3, "top_k": 2, "d_ff": 8}
    hidden = build(feed_forward=moe).train().hidden(draw_ids(2, 5), encoder_ids=draw_ids(2, 7))
    halves = {name.startswith("encoder_") for name in hidden.auxiliary}
    assert halves == {True, False}
    for name, (_, weight) in hidden.auxiliary.items():
        assert float(weight) == (2 * 7 if name.startswith("encoder_") else 2 * 5)


def test_one_seed_gives_one_model_and_stacks_of_their_own() -> None:
    config = from_tree(EncoderDecoderConfig, TREE)
    first, again, other = (EncoderDecoderLM(config, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    name = "decoder.blocks.1.cross_attention.query.weight"
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert not torch.equal(
        first.encoder.blocks[0].attention.query.weight, first.decoder.blocks[0].attention.query.weight
    )


def test_residual_matrices_shrink_with_the_branches_of_their_own_half() -> None:
    model = EncoderDecoderLM(from_tree(EncoderDecoderConfig, TREE | {"d_model": 128}))
    for half, branches in (("encoder", 2 * 2), ("decoder", 3 * 3)):
        deviation = model.get_parameter(f"{half}.blocks.0.attention.output.weight").std().item()
        assert deviation == pytest.approx(0.02 / branches**0.5, rel=0.05)
