import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.data.batch import gather
from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.data.order import TrainingOrder, Window
from pellucid.data.shards import Split
from pellucid.errors import ConfigError

SPLIT = Split("train", (np.arange(50, dtype=np.uint16), np.arange(100, 133, dtype=np.uint16)))
SEQ_LEN = 8
ORDER = TrainingOrder(SPLIT.shard_tokens, SEQ_LEN, seed=1)


def loader(**options: object) -> TrainingLoader:
    return TrainingLoader(SPLIT, ORDER, **{"batch_windows": 6, "micro_batch": 2, **options})  # type: ignore[arg-type]


def inputs(batches: list[TensorBatch]) -> list[list[int]]:
    return torch.cat([batch.inputs for batch in batches]).tolist()


def threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("pellucid-loader"))


# Gathering


def test_a_window_goes_on_at_the_start_of_its_shard() -> None:
    batch = gather(SPLIT, [Window(0, 0, 0, 10), Window(7, 1, 1, 28), Window(8, 1, 0, 49)], seq_len=8)
    assert batch.inputs.tolist() == [
        [10, 11, 12, 13, 14, 15, 16, 17],
        [128, 129, 130, 131, 132, 100, 101, 102],
        [49, 0, 1, 2, 3, 4, 5, 6],
    ]
    assert batch.targets[:, :-1].tolist() == batch.inputs[:, 1:].tolist()
    assert batch.targets[:, -1].tolist() == [18, 103, 7]
    assert batch.weights.tolist() == [[1.0] * 8] * 3
    assert batch.origin.windows.tolist() == [0, 7, 8]
    assert batch.origin.epochs.tolist() == [0, 1, 1]
    assert batch.origin.shards.tolist() == [0, 1, 0]
    assert batch.origin.starts.tolist() == [10, 28, 49]


def test_a_window_as_long_as_its_shard_predicts_its_first_token_last() -> None:
    split = Split("train", (np.arange(9, dtype=np.uint16),))
    batch = gather(split, [Window(0, 0, 0, 1)], seq_len=8)
    assert batch.inputs.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.targets.tolist() == [[2, 3, 4, 5, 6, 7, 8, 0]]


# Tensors

EXTRA = {
    "positions": np.arange(8)[None],
    "documents": np.zeros((1, 8), np.int64),
    "prefix_lengths": np.array([3]),
    "encoder_inputs": np.arange(5)[None],
    "encoder_documents": np.array([[0, 0, 0, -1, -1]]),
}


def test_a_batch_names_what_the_model_is_given() -> None:
    plain = TensorBatch.of(gather(SPLIT, [Window(0, 0, 0, 10)], seq_len=8))
    assert plain.model_inputs().keys() == {"input_ids"}
    batch = TensorBatch.of(replace(gather(SPLIT, [Window(0, 0, 0, 10)], seq_len=8), **EXTRA))
    inputs = batch.model_inputs()
    names = ["positions", "documents", "prefix_lengths", "encoder_ids", "encoder_documents"]
    assert list(inputs) == ["input_ids", *names]
    for name, array in zip(names, EXTRA.values(), strict=True):
        assert inputs[name].tolist() == array.tolist()


def test_a_batch_moves_with_everything_in_it() -> None:
    batch = TensorBatch.of(replace(gather(SPLIT, [Window(0, 0, 0, 10)], seq_len=8), **EXTRA))
    moved = batch.to(torch.device("meta"))
    assert moved.origin is batch.origin
    assert all(tensor.is_meta for tensor in (*moved.model_inputs().values(), moved.targets, moved.weights))
    assert len(moved.model_inputs()) == 6
    assert TensorBatch.of(gather(SPLIT, [Window(0, 0, 0, 1)], 8)).to(torch.device("cpu")).positions is None


# Loading


def test_a_step_is_its_windows_in_micro_batches() -> None:
    with loader() as one, loader(micro_batch=4) as other:
        batches, uneven = one.step(5), other.step(5)
    wanted = gather(SPLIT, ORDER.step(5, 6), SEQ_LEN)
    assert [len(batch.inputs) for batch in batches] == [2, 2, 2]
    assert [len(batch.inputs) for batch in uneven] == [4, 2]
    assert inputs(batches) == inputs(uneven) == wanted.inputs.tolist()
    assert torch.cat([batch.targets for batch in batches]).tolist() == wanted.targets.tolist()
    assert np.concatenate([batch.origin.windows for batch in batches]).tolist() == list(range(30, 36))
    first = batches[0]
    assert (first.inputs.dtype, first.targets.dtype, first.weights.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )


def test_any_step_can_be_asked_for_in_any_order() -> None:
    with loader() as straight, loader(read_ahead=0) as unread, loader(read_ahead=5) as jumping:
        wanted = [inputs(straight.step(step)) for step in range(10)]
        assert [inputs(unread.step(step)) for step in range(10)] == wanted
        for step in (7, 8, 3, 3, 9, 0):
            assert inputs(jumping.step(step)) == wanted[step]
        assert sorted(jumping._pending) == [1, 2, 3, 4, 5]  # nothing of the earlier places is kept


def test_ranks_share_the_global_batch() -> None:
    with loader(rank=0, world=2) as first, loader(rank=1, world=2) as second, loader() as alone:
        whole = inputs(alone.step(4))
        assert inputs(first.step(4)) == whole[0::2]
        assert inputs(second.step(4)) == whole[1::2]


def test_the_next_steps_are_read_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    third = threading.Event()
    make = TrainingLoader._make

    def watched(self: TrainingLoader, step: int) -> list[TensorBatch]:
        made.append(step)
        if step == 2:
            third.set()
        return make(self, step)

    monkeypatch.setattr(TrainingLoader, "_make", watched)
    with loader(read_ahead=2) as ahead:
        ahead.step(0)
        assert third.wait(timeout=10)
    assert made == [0, 1, 2]


def test_time_spent_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    make = TrainingLoader._make

    def slow(self: TrainingLoader, step: int) -> list[TensorBatch]:
        threading.Event().wait(0.05)
        return make(self, step)

    monkeypatch.setattr(TrainingLoader, "_make", slow)
    with loader(read_ahead=0) as waiting:
        assert waiting.waited_s == 0
        waiting.step(0)
        waiting.step(1)
        assert waiting.waited_s >= 0.08  # two waits of 0.05 s, which may be a little shorter


def test_an_error_in_the_thread_is_raised_by_the_step_it_belongs_to() -> None:
    broken = Split("train", (SPLIT.shards[0], SPLIT.shards[1]))
    with TrainingLoader(broken, ORDER, batch_windows=6, micro_batch=6, read_ahead=1) as failing:
        failing.step(0)
        object.__setattr__(broken, "shards", ())  # as if a file had gone away
        for step in (5, 6, 5):
            with pytest.raises(IndexError):
                failing.step(step)


def test_closing_ends_the_thread() -> None:
    open_loader = loader()
    open_loader.step(0)
    assert any(threads())
    open_loader.close()
    assert not any(threads())
    open_loader.close()


def test_the_thread_ends_when_the_block_raises() -> None:
    with pytest.raises(KeyError), loader() as failing:  # noqa: PT012
        failing.step(0)
        raise KeyError
    assert not any(threads())


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"a batch of 6 windows cannot be shared equally by 4 process"):
        loader(world=4)
    with pytest.raises(ConfigError, match=r"a batch of 0 windows"):
        loader(batch_windows=0)
    with pytest.raises(ConfigError, match=r"train\.micro_batch: wanted at least 1 window, not 0"):
        loader(micro_batch=0)
    with pytest.raises(
        ConfigError, match="the order was made for other shards than those of the split 'val'"
    ):
        TrainingLoader(Split("val", SPLIT.shards[:1]), ORDER, batch_windows=2, micro_batch=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gets_the_same_batches() -> None:
    with loader() as cpu, loader(device="cuda") as cuda:
        for step in range(20):
            on_device = cuda.step(step)
            assert all(batch.inputs.is_cuda and batch.weights.is_cuda for batch in on_device)
            assert inputs(on_device) == inputs(cpu.step(step))


def test_a_whole_step_is_the_shares_of_all_ranks_in_their_order() -> None:
    shares = []
    for rank in range(3):
        with loader(rank=rank, world=3) as one:
            shares += inputs(one.step(4))
    with loader(rank=1, world=3) as any_of_them:
        assert inputs(any_of_them.whole_step(4)) == shares
