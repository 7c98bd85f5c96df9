import pytest
import torch
from torch import Tensor

from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, Hidden
from pellucid.model.decoding import Decoding, decode, newest, pad_left, picker, row_lengths, tokens_read
from pellucid.model.positions import LearnedPositionConfig

VOCABULARY = 31


def build(context: int = 16, **fields) -> DecoderLM:
    """Weights drawn wide, so that greedy text is not one id repeated."""
    config = DecoderConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        num_layers=2,
        num_heads=2,
        max_seq_len=context,
        tie_embeddings=False,
        **fields,
    )
    model = DecoderLM(config).double().eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def draw_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def slow_greedy(model: DecoderLM, prompt: Tensor, max_new_tokens: int) -> Tensor:
    """The stated rule without a cache: text that does not fit is cut to its newest half context."""
    ids = read = prompt
    for _ in range(max_new_tokens):
        if read.shape[1] > model.max_seq_len:
            read = read[:, -max(1, model.max_seq_len // 2) :]
        new = model(read)[:, -1].argmax(dim=-1, keepdim=True)
        ids, read = torch.cat([ids, new], dim=1), torch.cat([read, new], dim=1)
    return ids


def test_greedy_is_the_argmax_of_uncached_logits() -> None:
    model, prompt = build(), draw_ids(2, 4)
    ids = model.generate(prompt, max_new_tokens=12)
    assert torch.equal(ids[:, :4], prompt)
    assert torch.equal(ids[:, 4:], model(ids)[:, 3:-1].argmax(dim=-1))
    assert ids[:, 4:].unique().numel() > 4


@pytest.mark.parametrize("position", [{}, {"position": LearnedPositionConfig()}], ids=["rope", "learned"])
@pytest.mark.parametrize("context", [1, 2, 7, 16])
@pytest.mark.parametrize("prompt_length", [1, 7, 8, 15, 16, 17, 40])
def test_text_longer_than_the_context_follows_the_stated_rule(
    position: dict, context: int, prompt_length: int
) -> None:
    model, prompt = build(context, **position), draw_ids(2, prompt_length)
    assert torch.equal(model.generate(prompt, max_new_tokens=35), slow_greedy(model, prompt, 35))


def test_reads_the_prompt_once_then_each_id_alone_and_half_the_context_when_it_is_full() -> None:
    class Recording(DecoderLM):
        def hidden(self, input_ids: Tensor, **given: object) -> Hidden:
            widths.append(input_ids.shape[1])
            return super().hidden(input_ids, **given)

    widths: list[int] = []
    model = Recording(build(8).config)
    model.generate(draw_ids(1, 5), max_new_tokens=10)
    assert widths == [5, 1, 1, 1, 4, 1, 1, 1, 1, 4]


def test_yields_each_id_as_soon_as_it_is_known() -> None:
    model = build()
    seen: list[Tensor] = []

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        seen.append(logits)
        return logits.argmax(dim=-1)

    stream = decode(model, draw_ids(1, 3), 5, pick)
    assert not seen
    next(stream)
    assert len(seen) == 1
    assert len(list(stream)) == 4


def test_pick_is_shown_the_whole_text_however_little_of_it_is_read() -> None:
    model, prompt, shown = build(8), draw_ids(2, 13), []

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        shown.append(ids)
        return logits.argmax(dim=-1)

    new = torch.stack(list(decode(model, prompt, 12, pick)), dim=1)
    for step, ids in enumerate(shown):
        assert torch.equal(ids, torch.cat([prompt, new[:, :step]], dim=1))


def test_a_prompt_without_a_batch_gives_text_without_a_batch() -> None:
    model, prompt = build(), draw_ids(1, 4)
    assert torch.equal(
        model.generate(prompt[0], max_new_tokens=6), model.generate(prompt, max_new_tokens=6)[0]
    )


def test_no_new_ids_gives_the_prompt() -> None:
    assert torch.equal(build().generate(draw_ids(2, 4), max_new_tokens=0), draw_ids(2, 4))


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model, prompts = build(), draw_ids(4, 5)
    together = model.generate(prompts, max_new_tokens=20)
    for row in range(4):
        assert torch.equal(model.generate(prompts[row], max_new_tokens=20), together[row])


def test_a_stopped_row_goes_on_with_stop_id_until_every_row_has_stopped() -> None:
    model, prompts = build(64), draw_ids(3, 5)
    free = model.generate(prompts, max_new_tokens=40)[:, 5:]
    stop_id = int(free[0, 2])
    lengths = [[*row.tolist(), stop_id].index(stop_id) + 1 for row in free]
    assert min(lengths) < max(lengths), "the case needs rows that stop at different steps"
    stopped = model.generate(prompts, max_new_tokens=40, stop_id=stop_id)[:, 5:]
    assert stopped.shape[1] == min(40, max(lengths))
    for row, length in enumerate(lengths):
        assert torch.equal(stopped[row, :length], free[row, :length])
        assert (stopped[row, length:] == stop_id).all()


# Prompts of unequal lengths -----------------------------------------------------------------------------


def test_prompts_are_padded_on_the_left_with_what_is_never_seen() -> None:
    ids, documents = pad_left([torch.tensor([7, 8, 9]), torch.tensor([5])])
    assert ids[0].tolist() == [7, 8, 9]
    assert ids[1, 2:].tolist() == [5]
    assert documents.tolist() == [[0, 0, 0], [-1, -1, 0]]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there is no prompt; give at least one"),
        ([[4], []], "a prompt is empty: a model needs at least one id to continue from"),
    ],
)
def test_padding_what_is_not_there_is_refused(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad_left([torch.tensor(prompt, dtype=torch.long) for prompt in prompts])


@pytest.mark.parametrize(
    ("lengths", "context"), [([1, 6, 4], 64), ([3, 3, 3], 64), ([3, 3, 3], 12), ([3, 3, 3], 5)], ids=str
)
def test_prompts_continue_as_each_alone(lengths: list[int], context: int) -> None:
    """Unequal ones while they fit: when the context is full, what is read again ends at the same column."""
    model, prompts = build(context), [draw_ids(1, n, seed=n)[0] for n in lengths]
    together = model.generate(prompts, max_new_tokens=15)
    assert isinstance(together, list)
    for prompt, ids in zip(prompts, together, strict=True):
        assert torch.equal(ids, model.generate(prompt, max_new_tokens=15))


def test_padding_stays_unseen_when_the_context_is_read_again() -> None:
    model, prompts = build(8), [draw_ids(1, n, seed=n)[0] for n in (1, 6)]
    ids, documents = pad_left(prompts)
    seen: list[Tensor] = []

    def pick(logits: Tensor, _: Tensor) -> Tensor:
        seen.append(logits)
        return torch.full((2,), 3)

    for _ in decode(model, ids, 9, pick, documents=documents):
        pass
    noise = torch.where(documents < 0, draw_ids(2, 6, seed=9), ids)
    before = list(seen)
    seen.clear()
    for _ in decode(model, noise, 9, pick, documents=documents):
        pass
    assert not torch.equal(noise, ids)
    for one, other in zip(before, seen, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("length", "read"), [(3, 3), (8, 8), (9, 4), (40, 4)])
def test_what_does_not_fit_is_cut_to_its_newest_half_context(length: int, read: int) -> None:
    assert tokens_read(length, 8) == read
    found, documents = newest(torch.arange(length)[None], lengths := [length], 8)
    assert found.tolist() == [list(range(length - read, length))]
    assert (documents, lengths) == (None, [read])


def test_rows_are_cut_each_by_its_own_length() -> None:
    ids, documents = pad_left([torch.arange(5), torch.arange(12), torch.arange(7)])
    found, seen = newest(ids, lengths := row_lengths(ids, documents), 8)
    assert lengths == [5, 4, 7]
    assert seen is not None
    assert [row[keep >= 0].tolist() for row, keep in zip(found, seen, strict=True)] == [
        [0, 1, 2, 3, 4],
        [8, 9, 10, 11],
        [0, 1, 2, 3, 4, 5, 6],
    ]


@pytest.mark.parametrize("family", [DecoderConfig, EncoderDecoderConfig])
@pytest.mark.parametrize("lengths", [(4, 9), (6, 14, 11), (20, 3), (24, 17, 16)], ids=str)
def test_rows_of_a_batch_outgrow_the_context_each_at_its_own_time(family, lengths: tuple[int, ...]) -> None:
    """Prompts shorter and longer than the context of 16, answers longer still: each row as if it were alone."""
    model = family(vocab_size=VOCABULARY, d_model=16, num_heads=2, max_seq_len=16).build(seed=4).double()
    prompts = [draw_ids(1, length, seed=length)[0] for length in lengths]
    together = model.generate(prompts, 30)
    for prompt, answer in zip(prompts, together, strict=True):
        assert torch.equal(answer, model.generate(prompt, 30))


@torch.no_grad()
def test_a_prefix_model_reads_its_prompt_in_both_directions() -> None:
    """As it was trained: decoding's first logits are those of a prefix mask over the prompt, ragged or not."""
    config = DecoderConfig(
        vocab_size=VOCABULARY, d_model=16, num_heads=2, max_seq_len=32, prompt_mask="prefix"
    )
    model, seen = config.build(seed=4).double(), []
    prompts = [draw_ids(1, 9, seed=1)[0], draw_ids(1, 5, seed=2)[0]]

    def pick(logits, _):
        seen.append(logits)
        return logits.argmax(dim=-1)

    ids, documents = pad_left(prompts)
    answers = torch.stack(list(decode(model, ids, 6, pick, documents=documents)), dim=1)
    for row, prompt in enumerate(prompts):
        whole = torch.cat((prompt, answers[row]))[None]
        hidden = model.hidden(whole, prefix_lengths=torch.tensor([len(prompt)]))
        expected = model.head(hidden.states)[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(
            torch.stack([logits[row] for logits in seen]), expected, rtol=0, atol=1e-12
        )
    causal = config.model_copy(update={"prompt_mask": None}).build(seed=4).double()
    assert not torch.allclose(causal(prompts[0][None])[0, -1], seen[0][0])


# Sampling -----------------------------------------------------------------------------------------------


def test_equal_seeds_draw_equal_text_and_leave_the_global_generator_alone() -> None:
    model, prompt = build(), draw_ids(2, 4)
    before = torch.get_rng_state()
    first, again, other = (model.generate(prompt, 20, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_top_k_draws_every_one_of_the_k_likeliest_and_nothing_else() -> None:
    model, prompt = build(), draw_ids(40, 4)
    ids = model.generate(prompt, 12, temperature=50.0, top_k=3)
    likeliest = model(ids)[:, 3:-1].topk(3, dim=-1).indices
    ranks = (likeliest == ids[:, 4:, None]).int()
    assert (ranks.sum(dim=-1) == 1).all()
    assert (ranks.flatten(0, 1).sum(dim=0) > 100).all()


def test_top_1_is_greedy_and_top_all_is_no_limit() -> None:
    model, prompt = build(), draw_ids(2, 4)
    assert torch.equal(model.generate(prompt, 9, temperature=2.0, top_k=1), model.generate(prompt, 9))
    limited, free = (model.generate(prompt, 9, temperature=2.0, top_k=k) for k in (10 * VOCABULARY, None))
    assert torch.equal(limited, free)


def test_draws_come_from_the_softmax_of_logits_over_temperature() -> None:
    logits, temperature, draws = torch.tensor([2.0, 0.5, -1.0, 0.0]), 0.7, 40_000
    pick = picker(temperature, None, torch.Generator().manual_seed(0))
    counts = pick(logits.expand(draws, 4), torch.zeros(draws, 1)).bincount(minlength=4)
    expected = draws * (logits / temperature).softmax(dim=0)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 16.3  # exceeded once in 1000 with 3 degrees of freedom


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 (greedy) or more, not -0.1"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1, not 0"),
    ],
)
def test_impossible_sampling_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        build().generate(draw_ids(1, 4), 3, **arguments)
    assert str(caught.value) == message


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the prompt is empty: a model needs at least one id to continue from"
    ):
        build().generate(draw_ids(1, 0), 3)


@torch.inference_mode()
def greedy(rows: Decoding, count: int) -> tuple[Tensor, Tensor]:
    """The next `count` ids of every row and the logits they were chosen by."""
    chosen_by = []
    for _ in range(count):
        chosen_by.append(rows.next_logits())
        rows.append(chosen_by[-1].argmax(dim=-1))
    return rows.ids[:, -count:], torch.stack(chosen_by, dim=1)


def ragged() -> tuple[Tensor, Tensor]:
    beginning = draw_ids(5)
    return pad_left([torch.cat((beginning, draw_ids(n, seed=n))) for n in (1, 6, 3)])


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("context", [12, 64])
def test_a_prompt_read_in_chunks_gives_the_same_logits(chunk: int, context: int) -> None:
    model, (prompt, documents) = build(context), ragged()
    whole, whole_logits = greedy(Decoding(model, prompt, 20, documents=documents), 20)
    parts, logits = greedy(Decoding(model, prompt, 20, documents=documents, chunk=chunk), 20)
    assert torch.equal(parts, whole)
    torch.testing.assert_close(logits, whole_logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("length", [1, 4, 5])
@pytest.mark.parametrize("context", [10, 12, 64])
def test_a_beginning_that_was_read_before_changes_nothing(
    context: int, length: int, chunk: int | None
) -> None:
    model, (prompt, documents) = build(context), ragged()
    first = Decoding(model, draw_ids(5)[None], 1)
    with torch.inference_mode():
        first.next_logits()
    known = first.cache.prefix(0, 5).first(length)
    whole, whole_logits = greedy(Decoding(model, prompt, 20, documents=documents), 20)
    rows = Decoding(model, prompt, 20, documents=documents, known=known, chunk=chunk)
    again, logits = greedy(rows, 20)
    assert torch.equal(again, whole)
    torch.testing.assert_close(logits, whole_logits, rtol=1e-9, atol=1e-9)


def test_a_known_beginning_must_leave_something_to_read() -> None:
    model = build()
    first = Decoding(model, draw_ids(1, 5), 1)
    with torch.inference_mode():
        first.next_logits()
    with pytest.raises(ValueError, match="a known beginning of 5 ids must be shorter than each prompt"):
        Decoding(model, draw_ids(1, 5), 1, known=first.cache.prefix(0, 5))


@pytest.mark.parametrize("read", [False, True])
def test_ids_that_are_taken_back_leave_nothing_behind(read: bool) -> None:
    model, prompt = build(64), draw_ids(2, 5)
    expected, expected_logits = greedy(Decoding(model, prompt, 8), 8)
    rows = Decoding(model, prompt, 8)
    with torch.inference_mode():
        rows.append(rows.next_logits().argmax(dim=-1))
        rows.append(draw_ids(2, 3, seed=9))
        if read:
            assert rows.logits(4).shape == (2, 4, VOCABULARY)
        rows.forget(3)
        if read:  # the one that was kept has been read with the others
            rows.forget(1)
            rows.append(expected[:, 0])
    assert rows.num_new == 1
    again, logits = greedy(rows, 7)
    assert torch.equal(again, expected[:, 1:])
    torch.testing.assert_close(logits, expected_logits[:, 1:], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="cannot take 9 ids back of 8"):
        rows.forget(9)


def test_logits_of_several_unread_ids_are_those_of_one_at_a_time() -> None:
    model, prompt = build(64), draw_ids(2, 5)
    new, expected = greedy(Decoding(model, prompt, 8), 8)
    rows = Decoding(model, prompt, 8)
    with torch.inference_mode():
        rows.next_logits()
        rows.append(new[:, :7])
        torch.testing.assert_close(rows.logits(7), expected[:, 1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prefix", [{}, {"prompt_mask": "prefix"}], ids=["causal", "prefix"])
def test_rows_go_on_where_others_were(prefix: dict) -> None:
    model, (prompt, documents) = build(14, **prefix), ragged()
    expected, _ = greedy(Decoding(model, prompt, 20, documents=documents), 20)
    rows = Decoding(model, prompt, 20, documents=documents)
    greedy(rows, 6)
    rows.keep([2, 0, 2, 2])
    again, _ = greedy(rows, 14)
    assert torch.equal(again, expected[[2, 0, 2, 2], 6:])


def test_room_is_what_can_be_read_before_the_older_half_goes() -> None:
    model, prompt = build(8), draw_ids(1, 5)
    rows, rooms = Decoding(model, prompt, 10), []
    for _ in range(6):
        greedy(rows, 1)
        rooms.append(rows.room)
    assert rooms == [2, 1, 0, -1, 3, 2]


def test_no_more_ids_are_written_than_there_is_room_for() -> None:
    rows = Decoding(build(), draw_ids(1, 3), 2)
    with pytest.raises(ValueError, match="room for 2 more ids, not 3"):
        rows.append(draw_ids(1, 3))
