import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM, KVCache
from pellucid.model.cache import CrossCache, Prefix


@pytest.fixture
def model() -> DecoderLM:
    config = DecoderConfig(
        vocab_size=31, d_model=16, num_layers=3, num_heads=4, num_kv_heads=2, max_seq_len=16
    )
    return DecoderLM(config).double().eval()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw_ids(*shape: int) -> Tensor:
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(0))


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def small_cache() -> KVCache:
    return KVCache.allocate(
        num_layers=2,
        batch_size=1,
        num_kv_heads=1,
        max_length=5,
        head_dim=2,
        device="cpu",
        dtype=torch.float32,
    )


def test_has_the_models_shape_dtype_and_the_stated_bytes(model: DecoderLM) -> None:
    cache = model.new_cache(5, 7)
    assert cache.keys.shape == cache.values.shape == (3, 5, 2, 7, 4)
    assert (cache.max_length, cache.length, cache.keys.dtype) == (7, 0, torch.float64)
    assert cache.bytes == 2 * 3 * 5 * 2 * 7 * 4 * 8
    assert model.new_cache(1).max_length == 16
    assert model.new_cache(1, dtype=torch.bfloat16).values.dtype == torch.bfloat16


def test_append_writes_after_the_filled_places_of_one_layer() -> None:
    cache = small_cache()
    for layer in (0, 1):
        cache.append(layer, torch.full((1, 1, 2, 2), 1.0 + layer), torch.full((1, 1, 2, 2), 10.0 + layer))
    cache.advance(2)
    keys, values = cache.append(1, torch.full((1, 1, 1, 2), 7.0), torch.full((1, 1, 1, 2), 70.0))
    assert keys[0, 0, :, 0].tolist() == [2.0, 2.0, 7.0]
    assert values[0, 0, :, 0].tolist() == [11.0, 11.0, 70.0]
    assert cache.keys[0, 0, 0, :, 0].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_append_beyond_the_end_is_refused_and_writes_nothing() -> None:
    cache = small_cache()
    cache.advance(4)
    with pytest.raises(ValueError, match="the cache holds 5 positions and 6 are needed"):
        cache.append(0, torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert not cache.keys.any()


def test_positions_beyond_max_seq_len_are_refused(model: DecoderLM) -> None:
    with pytest.raises(ValueError, match=r"17 positions .* are more than max_seq_len \(16\)"):
        model(draw_ids(1, 17))
    cache = model.new_cache(1, 40)
    model(draw_ids(1, 10), cache=cache)
    with pytest.raises(ValueError, match=r"17 positions .* are more than max_seq_len \(16\)"):
        model(draw_ids(1, 7), cache=cache)
    assert cache.length == 10


def test_crop_forgets_what_came_after(model: DecoderLM) -> None:
    ids, cache = draw_ids(2, 12), model.new_cache(2)
    model(draw_ids(2, 5).flip(1), cache=cache)
    cache.crop(0)
    model(torch.cat([ids[:, :6], ids[:, :3]], dim=1), cache=cache)
    cache.crop(6)
    close(model(ids[:, 6:], cache=cache), model(ids)[:, 6:])


@pytest.mark.parametrize("length", [-1, 4])
def test_crop_to_what_is_not_there_is_refused(length: int) -> None:
    cache = small_cache()
    cache.advance(3)
    with pytest.raises(ValueError, match=f"cannot crop a cache of 3 positions to {length}"):
        cache.crop(length)


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 1], [2], [0, 0, 1, 2, 2], torch.tensor([1, 0])], ids=str)
def test_reorder_lets_rows_continue_others(model: DecoderLM, rows) -> None:
    ids, cache = draw_ids(3, 6), model.new_cache(3)
    model(ids, cache=cache)
    cache.reorder(rows)
    new = draw_ids(len(rows), 4)
    expected = model(torch.cat([ids[torch.as_tensor(rows)], new], dim=1))[:, 6:]
    close(model(new, cache=cache), expected)


# Rows that differ: padding, packing, an encoded source ------------------------------------------------------

DOCUMENTS = torch.tensor([[-1, -1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0] * 6])


def test_places_are_kept_only_once_rows_differ(model: DecoderLM) -> None:
    cache = model.new_cache(3)
    model(draw_ids(3, 2), cache=cache)
    assert cache.positions is cache.documents is None
    model.hidden(draw_ids(3, 6), cache=cache, documents=DOCUMENTS)
    assert cache.positions is not None
    assert cache.documents is not None
    assert cache.positions[:, :8].tolist()[2] == list(range(8))
    assert cache.documents[:, :8].tolist() == [[0, 0, *row] for row in DOCUMENTS.tolist()]


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0], [0], [1, 0, 1, 2]], ids=str)
def test_reorder_takes_the_places_along(model: DecoderLM, rows: list[int]) -> None:
    ids, new, cache = draw_ids(3, 6), draw_ids(len(rows), 4), model.new_cache(3)
    model.hidden(ids, cache=cache, documents=DOCUMENTS)
    cache.reorder(rows)
    documents = torch.cat((DOCUMENTS, DOCUMENTS[:, -1:].expand(3, 4)), dim=1)[rows]
    expected = model.hidden(torch.cat((ids[rows], new), dim=1), documents=documents).states[:, 6:]
    close(model.hidden(new, cache=cache).states, expected)


def test_crop_forgets_the_places_too(model: DecoderLM) -> None:
    ids, cache = draw_ids(3, 6), model.new_cache(3)
    model.hidden(draw_ids(3, 6).flip(1), cache=cache, documents=DOCUMENTS.flip(1))
    cache.crop(0)
    model.hidden(ids, cache=cache, documents=DOCUMENTS)
    cache.crop(5)
    expected = model.hidden(ids, documents=DOCUMENTS).states[:, 5:]
    close(model.hidden(ids[:, 5:], cache=cache, documents=DOCUMENTS[:, 5:]).states, expected)


def writer() -> EncoderDecoderLM:
    config = EncoderDecoderConfig(
        vocab_size=31, d_model=16, num_encoder_layers=1, num_decoder_layers=2, max_seq_len=16
    )
    model = EncoderDecoderLM(config).double().eval()
    for parameter in model.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(3), std=0.3)
    return model


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0], [0], [1, 0, 1, 2]], ids=str)
@pytest.mark.parametrize("is_padded", [False, True])
def test_reorder_takes_the_encoded_source_along(rows: list[int], is_padded: bool) -> None:
    model, source, target = writer(), draw_ids(3, 6), draw_ids(3, 5)
    documents = torch.where(DOCUMENTS == 0, 0, -1) if is_padded else None
    cache = model.start(source, 8, documents=documents).cache
    target_documents = torch.tensor([[-1, 0, 0, 0, 0], [0] * 5, [0] * 5]) if is_padded else None
    model.hidden(target, cache=cache, documents=target_documents)
    cache.reorder(rows)
    new = draw_ids(len(rows), 2)
    whole = torch.cat((target[rows], new), dim=1)
    given = {}
    if is_padded:
        zeros = torch.zeros(len(rows), 2, dtype=torch.long)
        given = {
            "encoder_documents": documents[rows],
            "documents": torch.cat((target_documents[rows], zeros), dim=1),
        }
    expected = model.hidden(whole, encoder_ids=source[rows], **given).states[:, 5:]
    close(model.hidden(new, cache=cache).states, expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_way_of_rows_ends_with_what_they_have_seen(data: st.DataObject) -> None:
    """Against lists: rows that split, swap, go and come back, and are cropped, in any order."""
    cache = KVCache.allocate(
        num_layers=2,
        batch_size=2,
        num_kv_heads=1,
        max_length=9,
        head_dim=1,
        device="cpu",
        dtype=torch.float64,
    )
    sources = torch.tensor([[100.0, 101.0], [200.0, 201.0]], dtype=torch.float64)
    cache.cross = CrossCache(sources[None, :, None, :, None], -sources[None, :, None, :, None], None)
    seen: list[list[int]] = [[], []]
    source, written = [0, 1], 0
    for _ in range(data.draw(st.integers(1, 10))):
        what = data.draw(st.sampled_from(["append", "append", "reorder", "swap", "crop"]))
        if what == "append" and cache.length < 9:
            new = [written + row for row in range(len(seen))]
            written += len(seen)
            for layer in (0, 1):
                keys = torch.tensor(new, dtype=torch.float64)[:, None, None, None] + 1000 * layer
                cache.append(layer, keys, -keys)
            cache.advance(1)
            seen = [[*row, one] for row, one in zip(seen, new, strict=True)]
        elif what == "crop":
            length = data.draw(st.integers(0, cache.length))
            cache.crop(length)
            seen = [row[:length] for row in seen]
        elif what in ("reorder", "swap"):
            count = len(seen) if what == "swap" else data.draw(st.integers(1, 5))
            rows = data.draw(st.lists(st.integers(0, len(seen) - 1), min_size=count, max_size=count))
            cache.reorder(rows)
            seen, source = [seen[row] for row in rows], [source[row] for row in rows]
        for layer in (0, 1):
            keys = cache.keys[layer, :, 0, : cache.length, 0] - 1000 * layer
            assert keys.tolist() == seen
            assert (cache.values[layer] == -cache.keys[layer]).all()
        assert cache.max_length == 9
        assert cache.cross.keys[0, :, 0, :, 0].tolist() == sources[source].tolist()
        assert torch.equal(cache.cross.values, -cache.cross.keys)


def test_beams_that_swap_move_only_what_they_have_written() -> None:
    """What stays is marked after the split; in place, and the source is not copied."""
    cache = small_cache()
    cache.cross = CrossCache(torch.zeros(2, 1, 1, 7, 2), torch.zeros(2, 1, 1, 7, 2), None)
    cache.advance(2)
    cache.reorder([0, 0, 0])
    beams = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    cache.keys[:], cross = beams, cache.cross
    cache.advance(2)
    place = cache.keys.data_ptr()
    cache.reorder([2, 0, 0])
    assert cache.keys[0, :, 0, :, 0].tolist() == [[1, 1, 3, 3, 1], [2, 2, 1, 1, 2], [3, 3, 1, 1, 3]]
    assert cache.keys.data_ptr() == place
    assert cache.cross is cross


def test_beams_still_share_their_source_when_another_prompt_is_dropped() -> None:
    cache = KVCache.allocate(
        num_layers=1,
        batch_size=2,
        num_kv_heads=1,
        max_length=5,
        head_dim=1,
        device="cpu",
        dtype=torch.float32,
    )
    cache.cross = CrossCache(torch.zeros(1, 2, 1, 7, 1), torch.zeros(1, 2, 1, 7, 1), None)
    cache.reorder([0, 0, 1, 1])
    cache.reorder([3, 2])
    cross = cache.cross
    cache.reorder([1, 0])
    assert cache.cross is cross


def test_crop_keeps_the_encoded_source() -> None:
    model, source, target = writer(), draw_ids(2, 6), draw_ids(2, 5)
    cache = model.start(source, 8).cache
    model.hidden(target.flip(1), cache=cache)
    cache.crop(0)
    expected = model.hidden(target, encoder_ids=source).states
    close(model.hidden(target, cache=cache).states, expected)


def test_the_encoded_source_counts_among_the_bytes() -> None:
    cache = small_cache()
    before = cache.bytes
    cache.cross = CrossCache(torch.zeros(2, 1, 1, 7, 2), torch.zeros(2, 1, 1, 7, 2), None)
    assert cache.bytes == before + 2 * (2 * 1 * 1 * 7 * 2) * 4


@pytest.mark.parametrize(("rows", "batch"), [(2, 1), (1, 2)])
def test_another_number_of_rows_is_refused(model: DecoderLM, rows: int, batch: int) -> None:
    cache = model.new_cache(rows)
    with pytest.raises(ValueError, match=f"the cache holds {rows} rows and the input has {batch}"):
        model(draw_ids(batch, 4), cache=cache)
    assert not cache.keys.any()


def test_what_is_adopted_stands_behind_each_rows_padding() -> None:
    """A row with padding takes so much less of it over, one with more than there is takes nothing."""
    read = torch.arange(1.0, 4.0)[None, None, :, None].expand(2, 1, 3, 2)
    cache = small_cache()
    cache.reorder([0, 0, 0])
    cache.adopt(Prefix(read, 10 * read), torch.tensor([0, 2, 7]))
    assert cache.length == 3
    assert cache.keys[1, :, 0, :3, 0].tolist() == [[1, 2, 3], [0, 0, 1], [0, 0, 0]]
    assert cache.values[0, :, 0, :3, 1].tolist() == [[10, 20, 30], [0, 0, 10], [0, 0, 0]]
    assert cache.positions is not None
    assert cache.positions[:, :3].tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert cache.documents is not None
    assert cache.documents[:, :3].tolist() == [[0, 0, 0], [-1, -1, 0], [-1, -1, -1]]
    with pytest.raises(ValueError, match="the cache already holds 3 positions; crop it to 0 first"):
        cache.adopt(Prefix(read, read))
