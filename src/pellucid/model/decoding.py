"""The only place where a model reads a prompt and then what it writes: `Decoding`, and a loop around it, `decode`.

How an id is chosen is an argument: `pick(logits [B, V], ids [B, T])`. Sampling, beams, speculation and the engine of
the generate package go around the same `Decoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.cache import Prefix
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.seeding import torch_generator

Pick = Callable[[Float[Tensor, "B V"], Int[Tensor, "B T"]], Int[Tensor, " B"]]
"""Chooses the next id of every row, from its logits and the ids of its sequence so far.

Those are the whole prompt and the new ones; of an encoder-decoder, whose prompt is another sequence, the target's.
"""


IDS_AT_ONCE = 512
"""Of a prompt, all rows together, on CPUs: more are no faster, and what comes between layers outgrows the caches."""


class Decoding:
    """Rows of text that grow: the ids so far, the cache of what the model has read of them, and what it has not.

    `next_logits` reads the unread ids and says what may follow; `append` writes an id to every row; `keep` lets
    rows go on where others were, or drops some; `forget` takes ids back. The prompt is read in
    chunks of `chunk` columns (left out: of IDS_AT_ONCE ids on CPUs, elsewhere whole), into a preallocated cache (by
    an encoder-decoder: into its encoder, whole), then each new id alone.

    When a row has filled the context, its newest half is read again into the emptied cache and decoding goes on,
    so that text can be longer than the context; a prompt longer than the context is cut to its newest half in the
    same way. `documents` is -1 where the prompt is padding (see `pad_left`). `known` is what the model has read
    before of a beginning that all prompts share; it must be shorter than each. dtype: the cache's, by default the
    weights'. Use it in `evaluation_mode`, without gradients.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        documents: Int[Tensor, "B T"] | None = None,
        dtype: torch.dtype | None = None,
        chunk: int | None = None,
        known: Prefix | None = None,
    ) -> None:
        if prompt.shape[1] == 0:
            raise ValueError("the prompt is empty: a model needs at least one id to continue from")
        start = model.start(prompt, max_new_tokens, documents=documents, dtype=dtype)
        self._model, self._chunk, self._known = model, chunk, known
        self.cache = start.cache
        self._ids = start.ids
        self._width = self._prompt_width = start.ids.shape[1]
        self._most = self._width + max_new_tokens
        self._lengths = row_lengths(start.ids, start.documents)
        self._prefix_lengths = list(self._lengths) if start.is_prefix else None
        if known is not None and (start.is_prefix or known.length >= min(self._lengths)):
            raise ValueError(
                f"a known beginning of {known.length} ids must be shorter than each prompt, whose shortest has "
                f"{min(self._lengths)}, and none of it may see what follows"
            )
        self._unread: int | None = (
            None  # how many of the newest columns; None: everything, into an empty cache
        )

    @property
    def ids(self) -> Int[Tensor, "B T"]:
        """All ids so far, the prompt's padding on the left included; of an encoder-decoder, the target's."""
        return self._ids[:, : self._width]

    @property
    def num_new(self) -> int:
        """How many ids have been appended to each row."""
        return self._width - self._prompt_width

    @property
    def room(self) -> int:
        """How many more ids can be appended and read before a row's older half is forgotten; below 0: none of now."""
        held = max(self._lengths) if self._unread is None else self.cache.length + self._unread
        return self._model.max_seq_len - held

    @property
    def rooms(self) -> list[int]:
        """The same for each row by its own ids: a row with padding beside longer ones has more room than the cache."""
        return [self._model.max_seq_len - length for length in self._lengths]

    def next_logits(self) -> Float[Tensor, "B V"]:
        """Read what is unread; the logits of the id after it."""
        return self.logits(1)[:, -1]

    def logits(self, count: int) -> Float[Tensor, "B count V"]:
        """Read what is unread, which are at least `count` ids; the logits of what follows each of the newest."""
        assert self._unread != 0, "every id has been read: append one first"
        if self._unread is None or self.room < 0:
            states = self._read_anew(count)
        else:
            states = self._read(self.ids[:, self._width - self._unread :], {}, count)
        self._unread = 0
        return self._model.head(states[:, -count:])

    def append(self, new: Int[Tensor, " B"] | Int[Tensor, "B count"]) -> None:
        """Write an id, or several, to every row. At most max_new_tokens in all."""
        columns = new if new.dim() == 2 else new[:, None]
        count = columns.shape[1]
        if self._width + count > self._most:
            raise ValueError(f"there is room for {self._most - self._width} more ids, not {count}")
        if self._width + count > self._ids.shape[1]:
            self._ids = F.pad(
                self._ids, (0, max(count, min(self._most, 2 * self._width) - self._ids.shape[1]))
            )
        self._ids[:, self._width : self._width + count] = columns
        self._width += count
        self._lengths = [length + count for length in self._lengths]
        if self._unread is not None:
            self._unread += count

    def forget(self, count: int) -> None:
        """Take the newest `count` ids of every row back, as if they had never been appended."""
        if not 0 <= count <= self.num_new:
            raise ValueError(f"cannot take {count} ids back of {self.num_new} new ones")
        self._width -= count
        self._lengths = [length - count for length in self._lengths]
        if self._unread is not None:
            self.cache.crop(self.cache.length - max(0, count - self._unread))
            self._unread = max(0, self._unread - count)

    def keep(self, rows: Int[Tensor, " B_new"] | Sequence[int]) -> None:
        """Let row i go on where row rows[i] was; rows that are not named are dropped."""
        chosen = torch.as_tensor(rows, device=self._ids.device)
        numbers: list[int] = chosen.tolist()
        self.cache.reorder(chosen)
        self._ids = self._ids[chosen]
        self._lengths = [self._lengths[row] for row in numbers]
        if self._prefix_lengths is not None:
            self._prefix_lengths = [self._prefix_lengths[row] for row in numbers]

    def _read(
        self, ids: Int[Tensor, "B T_read"], inputs: dict[str, Tensor], count: int
    ) -> Float[Tensor, "B T_last D"]:
        """The states of the last chunk, which is a whole one and has `count` ids at least."""
        width = ids.shape[1]
        chunk = width if "prefix_lengths" in inputs else min(max(self._columns(ids), count), width)
        states = None
        for end in range(width % chunk or chunk, width + 1, chunk):
            part = slice(max(0, end - chunk), end)
            now = {name: x if name == "prefix_lengths" else x[:, part] for name, x in inputs.items()}
            states = self._model.hidden(ids[:, part], cache=self.cache, **now).states
        assert states is not None
        return states

    def _columns(self, ids: Int[Tensor, "B T_read"]) -> int:
        """How many are read at once."""
        if self._chunk is not None:
            return self._chunk
        return max(1, IDS_AT_ONCE // ids.shape[0]) if ids.device.type == "cpu" else ids.shape[1]

    def _read_anew(self, count: int) -> Float[Tensor, "B T_last D"]:
        """Each row's ids where they fit, else its newest half."""
        context, before = self._model.max_seq_len, list(self._lengths)
        self.cache.crop(0)
        known, self._known = self._known, None
        if known is not None and max(before) <= context:
            return self._read_after(known, count)
        read, documents = newest(self.ids, self._lengths, context)
        inputs = {} if documents is None else {"documents": documents}
        if (
            self._prefix_lengths is not None
        ):  # a prompt, and all of what a cut has left, is seen in both directions
            pairs = zip(self._prefix_lengths, before, self._lengths, strict=True)
            self._prefix_lengths = [seen if old == new else new for seen, old, new in pairs]
            seen = zip(self._lengths, self._prefix_lengths, strict=True)
            columns = [read.shape[1] - length + prefix for length, prefix in seen]
            inputs["prefix_lengths"] = torch.tensor(columns, device=read.device)
        return self._read(read, inputs, count)

    def _read_after(self, known: Prefix, count: int) -> Float[Tensor, "B T_last D"]:
        """What follows the known beginning. Where a shorter row has padding before it, the end of it is read again."""
        read, documents = newest(self.ids, self._lengths, self._model.max_seq_len)
        self.cache.adopt(known, None if documents is None else (documents < 0).sum(dim=1))
        inputs = {} if documents is None else {"documents": documents[:, known.length :]}
        return self._read(read[:, known.length :], inputs, count)


@torch.inference_mode()
def decode(
    model: LanguageModel,
    prompt: Int[Tensor, "B T"],
    max_new_tokens: int,
    pick: Pick,
    *,
    stop_id: int | None = None,
    documents: Int[Tensor, "B T"] | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Yield the next id of every row, up to max_new_tokens times. See `Decoding` for how they are read.

    After `stop_id` a row yields only `stop_id`; when every row has stopped, so does the loop. The model is in
    evaluation mode until then, or until the iterator is closed.
    """
    stopped = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    with evaluation_mode(model):
        rows = Decoding(model, prompt, max_new_tokens, documents=documents, dtype=dtype)
        for _ in range(max_new_tokens):
            new = pick(rows.next_logits(), rows.ids)
            if stop_id is not None:
                new = torch.where(stopped, stop_id, new)
                stopped |= new == stop_id
            yield new
            if stop_id is not None and bool(stopped.all()):
                return
            rows.append(new)


def row_lengths(ids: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None) -> list[int]:
    """How many ids of each row are no padding."""
    return [ids.shape[1]] * ids.shape[0] if documents is None else (documents >= 0).sum(dim=1).tolist()


def tokens_read(length: int, context: int) -> int:
    """How many of a row's ids are read at once: all where they fit, else the newest half of a context."""
    return length if length <= context else max(1, context // 2)


def newest(
    ids: Int[Tensor, "B T"], lengths: list[int], context: int
) -> tuple[Int[Tensor, "B T_read"], Int[Tensor, "B T_read"] | None]:
    """The last lengths[b] ids of each row, padded on the left, and their documents (None without padding).

    A row longer than the context is cut to the newest half of a context, in `lengths` too.
    """
    lengths[:] = [tokens_read(length, context) for length in lengths]
    longest = max(lengths)
    read = ids[:, -longest:]
    if min(lengths) == longest:
        return read, None
    column = torch.arange(longest, device=ids.device)
    first = longest - torch.tensor(lengths, device=ids.device)
    return read, torch.where(column < first[:, None], -1, 0)


def pad_left(prompts: Sequence[Int[Tensor, " T_row"]]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Prompts of unequal lengths as one tensor, and its documents: -1 where it is padding, so that none is seen."""
    if not prompts:
        raise ValueError("there is no prompt; give at least one")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt is empty: a model needs at least one id to continue from")
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.stack([F.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
    documents = [F.pad(torch.zeros_like(prompt), (longest - len(prompt), 0), value=-1) for prompt in prompts]
    return ids, torch.stack(documents)


def picker(temperature: float, top_k: int | None, generator: torch.Generator) -> Pick:
    """Greedy at temperature 0; else a draw from softmax(logits / temperature), over the top_k ids if given.

    Plain settings for `model.generate`; generate/sampling/ has the rest.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")

    def pick(logits: Float[Tensor, "B V"], _: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
        if temperature == 0:
            return logits.argmax(dim=-1)
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        logits = logits.float()
        largest = logits.amax(dim=-1, keepdim=True)  # subtracted, so that no temperature overflows
        return draw((logits - largest) / temperature, generator)

    return pick


def keep_top_k(logits: Float[Tensor, "B V"], top_k: int) -> Float[Tensor, "B V"]:
    """Every logit below the k-th largest becomes -inf."""
    threshold = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def draw(logits: Float[Tensor, "B V"], generator: torch.Generator) -> Int[Tensor, " B"]:
    """One id a row from softmax(logits)."""
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def generator_for(device: torch.device, seed: int) -> torch.Generator:
    """The generator that sampling draws from."""
    return torch_generator(device, seed, "sampling")
