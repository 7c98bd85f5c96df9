"""Every number of a walk is read from the pass that ran: another weight or sentence changes what depends on it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import pellucid
from pellucid.config import members
from pellucid.errors import ConfigError, TokenizerError
from pellucid.model.block import Layout
from pellucid.model.feedforward import FeedForwardConfig
from pellucid.model.interface import Head
from pellucid.model.norms import NormConfig
from pellucid.model.positions import PositionConfig
from pellucid.report.walkthrough import LONGEST, Origin, walk
from pellucid.report.walkthrough.sources import formula_of
from pellucid.tokenizers import build

TEXT = "To be, or not"
ROOT = Path(pellucid.__file__).parents[2]


@pytest.fixture
def changed(stroll):
    """The titles whose numbers change when a parameter does."""

    def titles(model, name: str, **settings) -> set[str]:
        before = stroll(model, **settings)
        parameter = model.get_parameter(name)
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            parameter.add_(0.5 * noise)
        after = stroll(model, **settings)
        return {
            was.title
            for was, now in zip(before.sections, after.sections, strict=True)
            if was.numbers != now.numbers
        }

    return titles


END = {"The residual stream grows", "The next token"}


@pytest.mark.parametrize(
    ("parameter", "titles"),
    [
        ("blocks.1.feed_forward.down.weight", END),
        ("blocks.0.feed_forward.up.weight", END | {"The feed-forward layer"}),
        ("blocks.0.feed_forward_norm.gain", END | {"The feed-forward layer"}),
        ("blocks.0.attention.key.weight", END | {"Attention", "The feed-forward layer"}),
        ("final_norm.gain", END),
    ],
)
def test_a_weight_changes_the_numbers_after_it_and_no_others(decoder, changed, parameter, titles):
    found = changed(decoder(), parameter, head=0)
    assert found - {"Attention"} == titles - {"Attention"}  # block 1's heads, too, are compared there
    assert titles <= found


def test_a_query_weight_changes_what_turns_and_who_attends(decoder, changed):
    found = changed(decoder(), "blocks.0.attention.query.weight", head=0)
    assert {"Where a token stands", "Attention"} <= found
    assert not {"Text becomes ids", "Ids become vectors", "A norm sets the scale"} & found


def test_a_gain_changes_what_leaves_its_norm_and_not_what_enters(decoder, stroll):
    model = decoder()
    before = stroll(model).section("A norm sets the scale").numbers
    with torch.no_grad():
        model.blocks[0].attention_norm.gain.mul_(3)
    after = stroll(model).section("A norm sets the scale").numbers
    assert after["rms_before"] == before["rms_before"]
    assert after["rms_after"] == pytest.approx([3 * size for size in before["rms_after"]])
    assert after["gain"] == [3.0, 3.0]


def test_a_block_counts_from_where_it_stands_in_the_stream(decoder, stroll):
    model = decoder()
    first = stroll(model).section("The residual stream grows").numbers["decoder"]["blocks"]
    with torch.no_grad():
        model.blocks[1].feed_forward.down.weight.mul_(2)
    second = stroll(model).section("The residual stream grows").numbers["decoder"]["blocks"]
    assert second[0] == first[0]
    assert second[1]["attention"] == first[1]["attention"]
    assert second[1]["feed_forward"] == pytest.approx(2 * first[1]["feed_forward"])
    assert first[1]["before"] == first[0]["after"]


def test_another_sentence_has_other_ids_and_another_end(decoder, stroll):
    model = decoder()
    one, other = stroll(model, "To be"), stroll(model, "be To")
    assert one.section("Text becomes ids").numbers["sentence"] == {
        "ids": [84, 111, 32, 98, 101],
        "tokens": ["T", "o", "␣", "b", "e"],
    }
    assert other.section("Text becomes ids").numbers["sentence"]["ids"] == [98, 101, 32, 84, 111]
    assert one.section("The next token").numbers != other.section("The next token").numbers


def test_parts_add_up_to_the_model(decoder, encoder_decoder, stroll):
    for model in (decoder(), decoder(tie_embeddings=False), encoder_decoder(share_embeddings=False)):
        numbers = stroll(model).section("The model").numbers
        for counts in (numbers["parameters"], numbers["flops"]):
            assert counts["all"] == sum(count for part, count in counts.items() if part != "all")
        assert numbers["parameters"]["all"] == sum(p.numel() for p in model.parameters())
        heads = [part for part in numbers["flops"] if part.startswith("head")]
        tokens = len(TEXT) + (1 if "cross attention" in numbers["flops"] else 0)
        assert [numbers["flops"][head] for head in heads] == [2 * tokens * 16 * 257]


def test_vectors_are_rows_of_the_table(decoder, stroll):
    model = decoder()
    numbers = stroll(model, "To To").section("Ids become vectors").numbers
    rows = model.embedding.table[torch.tensor(list(b"To To"))]
    assert numbers["rms"] == pytest.approx(rows.square().mean(dim=-1).sqrt().tolist())
    assert numbers["equal_tokens"] == [0, 3]


def test_shapes_are_those_of_the_tensors(decoder, stroll):
    steps = stroll(decoder()).section("The shapes on the way").numbers["steps"]
    shapes = {step["step"]: (step["letters"], step["shape"]) for step in steps}
    assert shapes["ids"] == ("[B, T]", [1, 13])
    assert shapes["block 0 queries"] == ("[B, H, T, E]", [1, 4, 13, 4])
    assert shapes["block 0 keys, values"] == ("[B, K, S, E]", [1, 2, 13, 4])
    assert shapes["block 0 scores, weights"] == ("[B, H, T, S]", [1, 4, 13, 13])
    assert shapes["block 0 feed-forward inside"] == ("[B, T, F]", [1, 13, 64])
    assert shapes["logits"] == ("[B, T, V]", [1, 13, 257])


@pytest.mark.parametrize("kernel", ["auto", "flex", "reference"])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_is_that_of_the_pass(decoder, stroll, kernel, window):
    model = decoder(attention={"kernel": kernel, "window": window})
    numbers = stroll(model, layer=1, head=2).section("Attention").numbers
    weights = torch.tensor(numbers["weights"])
    assert (numbers["block"], numbers["head"]) == (1, 2)
    assert weights.sum(dim=-1).tolist() == pytest.approx([1.0] * 13, abs=1e-5)
    seen = torch.ones(13, 13).tril() - (0 if window is None else torch.ones(13, 13).tril(-window))
    assert (weights[seen == 0] == 0).all()
    assert (weights[seen == 1] > 0).all()
    assert numbers["largest_difference_from_pass"] < 1e-5


def test_the_head_that_is_shown_is_the_sharpest_unless_one_is_named(decoder, stroll):
    model = decoder()
    with torch.no_grad():
        model.blocks[0].attention.query.weight[8:12] *= 5  # head 2 of 4, each of 4 features
    numbers = stroll(model).section("Attention").numbers
    assert numbers["head"] == 2
    assert min(numbers["spread_by_block_and_head"][0]) == numbers["spread_by_block_and_head"][0][2]
    assert stroll(model, head=1).section("Attention").numbers["head"] == 1


def test_spread_is_entropy_as_a_share_of_the_largest(decoder, stroll):
    model = decoder()
    numbers = stroll(model, head=0).section("Attention").numbers
    weights = torch.tensor(numbers["weights"], dtype=torch.float64)[1:]
    shares = -torch.xlogy(weights, weights).sum(dim=-1) / torch.arange(2, 14).log()
    assert numbers["spread_by_block_and_head"][0][0] == pytest.approx(shares.mean().item(), abs=1e-4)
    with torch.no_grad():
        model.blocks[0].attention.query.weight.zero_()  # every score is 0
    assert stroll(model).section("Attention").numbers["spread_by_block_and_head"][0] == pytest.approx(
        [1.0] * 4
    )


@pytest.mark.parametrize("settings", [{}, {"fraction": 0.5}, {"scaling": {"kind": "linear", "factor": 2.0}}])
def test_rope_turns_the_pair_by_the_angle(decoder, stroll, settings):
    model = decoder(position={"kind": "rope", **settings})
    numbers = stroll(model, head=1).section("Where a token stands").numbers["turned"]
    for before, after, angle in zip(numbers["before"], numbers["after"], numbers["angles"], strict=True):
        turned = complex(*before) * complex(math.cos(angle), math.sin(angle))
        assert (turned.real, turned.imag) == pytest.approx(tuple(after), abs=1e-5)
    places = [math.remainder(place * numbers["radians_a_place"][0], 2 * math.pi) for place in range(13)]
    assert numbers["angles"] == pytest.approx(places, abs=1e-5)


def test_rope_shows_the_queries_after_qk_norm(decoder, stroll):
    model = decoder(attention={"qk_norm": True})
    section = stroll(model, head=1).section("Where a token stands")
    with torch.no_grad():
        model.blocks[0].attention.query_norm.gain.mul_(2)
    doubled = stroll(model, head=1).section("Where a token stands")
    before, after = (torch.tensor(s.numbers["turned"]["before"]) for s in (section, doubled))
    assert torch.allclose(after, 2 * before)


def test_learned_positions_are_the_rows_that_were_added(decoder, stroll):
    model = decoder(position={"kind": "learned"})
    added = stroll(model).section("Where a token stands").numbers["added"]
    table = model.position.table[:13]
    assert added["rms"] == pytest.approx(table.square().mean(dim=-1).sqrt().tolist(), rel=1e-4)
    assert added["likeness_to_place_0"] == pytest.approx(
        F.cosine_similarity(table[:1], table, dim=-1).tolist(), abs=1e-4
    )


def test_t5_and_alibi_show_what_was_added_to_the_scores(decoder, stroll):
    model = decoder(position={"kind": "t5"})
    biased = stroll(model).section("Where a token stands").numbers["biased"]
    assert biased["distances"] == [0, 1, 2, 4, 8]
    assert biased["bias_by_head"][3] == pytest.approx(model.position.table[[0, 1, 2, 4, 8], 3].tolist())
    alibi = stroll(decoder(position={"kind": "alibi"})).section("Where a token stands").numbers["biased"]
    assert alibi["bias_by_head"][0] == pytest.approx([-0.25 * distance for distance in alibi["distances"]])


def test_a_relu_shows_its_silent_units(decoder, stroll):
    model = decoder(feed_forward={"kind": "relu", "d_ff": 10}, bias=True)
    with torch.no_grad():
        model.blocks[0].feed_forward.up.weight.zero_()
        model.blocks[0].feed_forward.up.bias.copy_(torch.tensor([100.0, 50.0, 5.0] + [-1.0] * 7))
    numbers = stroll(model).section("The feed-forward layer").numbers
    assert (numbers["width"], numbers["zero"]) == (10, pytest.approx(0.7))
    assert numbers["active"] == pytest.approx([0.2] * 13)  # 5 is less than a tenth of 100
    assert numbers["strongest"] == [0] * 13


def test_experts_are_those_that_the_router_chose(decoder, stroll):
    model = decoder(feed_forward={"kind": "moe", "num_experts": 4, "top_k": 2})
    with torch.no_grad():
        model.blocks[0].feed_forward.router.weight[0] = 0
        model.blocks[0].feed_forward.router.weight[2] = -model.blocks[0].feed_forward.router.weight[1]
        model.blocks[0].feed_forward.router.weight[3] = 9 * model.blocks[0].feed_forward.router.weight[1]
    read = []
    model.blocks[0].feed_forward.register_forward_hook(lambda _, inputs, __: read.append(inputs[0][0]))
    numbers = stroll(model).section("The feed-forward layer").numbers
    likes = (read[0].clone() @ model.blocks[0].feed_forward.router.weight[1] > 0).tolist()
    assert {True, False} == set(likes)
    assert numbers["experts"] == [[3, 1] if liked else [2, 0] for liked in likes]
    assert numbers["tokens_by_expert"] == [13 - sum(likes), sum(likes), 13 - sum(likes), sum(likes)]


def test_candidates_are_the_largest_logits(decoder, stroll):
    model = decoder()
    numbers = stroll(model).section("The next token").numbers
    with torch.no_grad():
        logs = model(torch.tensor([list(TEXT.encode())]))[0].double().log_softmax(dim=-1)
    best = logs[-1].exp().topk(5)
    assert [candidate["id"] for candidate in numbers["candidates"]] == best.indices.tolist()
    assert [c["probability"] for c in numbers["candidates"]] == pytest.approx(best.values.tolist(), rel=1e-5)
    assert numbers["entropy_nats"] == pytest.approx(-(logs[-1].exp() * logs[-1]).sum().item(), rel=1e-5)
    surprises = [-logs[place, number].item() for place, number in enumerate(TEXT.encode()[1:])]
    assert numbers["surprise_nats"] == pytest.approx(surprises, rel=1e-5)


KINDS = [
    *({"position": {"kind": kind}} for kind in members(PositionConfig)),
    *({"feed_forward": {"kind": kind}} for kind in members(FeedForwardConfig)),
    *({"norm": {"kind": kind}} for kind in members(NormConfig)),
    *({"block": layout} for layout in Layout.__args__),
    {"attention": {"qk_norm": True, "softcap": 5.0}, "logit_softcap": 10.0, "vocab_multiple": 8},
    {"scale_embeddings": True, "tie_embeddings": False},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_kind_can_be_walked_through(decoder, encoder_decoder, stroll, settings):
    for model in (decoder(**settings), encoder_decoder(**settings)):
        walkthrough = stroll(model)
        json.dumps(walkthrough.to_dict(), allow_nan=False)
        for section in walkthrough.sections:
            assert section.words
            assert section.files
            assert all((ROOT / file).is_file() for file in section.files)


def test_a_sentence_may_be_one_token(decoder, encoder_decoder, stroll):
    for model in (decoder(), encoder_decoder(position={"kind": "t5"})):
        json.dumps(stroll(model, "x").to_dict(), allow_nan=False)


def test_formulas_and_files_are_those_of_the_classes(decoder, stroll):
    walkthrough = stroll(decoder(norm={"kind": "layernorm"}, position={"kind": "learned"}))
    norm = walkthrough.section("A norm sets the scale")
    assert norm.files == ("src/pellucid/model/norms/layernorm.py",)
    assert norm.formula.endswith("(x - μ) / sqrt(σ² + eps) · g + b")
    place = walkthrough.section("Where a token stands")
    assert (place.files, place.formula) == (
        ("src/pellucid/model/positions/learned.py",),
        "x + table[position]",
    )


# What is said holds for this model --------------------------------------------------------------------


def said(section) -> str:
    return " ".join((section.words, section.formula, *section.remarks))


def steps(walkthrough) -> list[str]:
    return [step["step"] for step in walkthrough.section("The shapes on the way").numbers["steps"]]


@pytest.mark.parametrize("layout", Layout.__args__)
def test_a_model_without_norms_is_told_without_norms(decoder, encoder_decoder, stroll, layout):
    for model in (decoder(norm={"kind": "none"}, block=layout), encoder_decoder(norm={"kind": "none"})):
        walkthrough = stroll(model)
        assert "This model has none" in walkthrough.section("No norm sets the scale").words
        stream = walkthrough.section("The residual stream without norms")
        assert "through a norm" not in said(stream)
        assert "final norm" not in said(stream)
        assert "as large as it is" in stream.words
        assert not any("norm" in step for step in steps(walkthrough))


@pytest.mark.parametrize(
    ("layout", "title", "where", "readers"),
    [
        (
            "pre_norm",
            "The residual stream grows",
            "before each branch.",
            "Every branch reads it through a norm.",
        ),
        ("post_norm", "The residual stream keeps its size", "after each branch", "needs no final norm"),
        ("sandwich_norm", "The residual stream grows", "another behind it", "sets the size of what it adds"),
        ("parallel", "The residual stream grows", "serves all branches", "side by side, through one norm"),
    ],
)
def test_norms_are_told_where_they_stand(decoder, encoder_decoder, stroll, layout, title, where, readers):
    for model in (decoder(block=layout), encoder_decoder(block=layout)):
        walkthrough = stroll(model)
        assert where in walkthrough.section("A norm sets the scale").words
        stream = walkthrough.section(title)
        assert readers in stream.words
        assert ("final norm brings it" in said(stream)) is (layout != "post_norm")
        assert ("sum of all that was said" in stream.words) is (layout != "post_norm")


def test_the_norm_stands_among_the_steps_where_it_runs(decoder, stroll):
    before, after = steps(stroll(decoder())), steps(stroll(decoder(block="post_norm")))
    assert before.index("block 0 norm") < before.index("block 0 queries")
    assert after.index("block 0 norm") > after.index("block 0 attention adds")


def test_a_sandwich_tells_what_is_added_in_the_end(decoder, stroll):
    model = decoder(block="sandwich_norm")
    with torch.no_grad():
        model.blocks[0].feed_forward_out_norm.gain.fill_(3)
    remark = stroll(model).section("The feed-forward layer").remarks[0]
    assert re.search(
        r"gives vectors of RMS \S+, which the norm behind it makes (2\.9\d\d|3\.000) to be", remark
    )
    assert "and adds vectors" in stroll(decoder()).section("The feed-forward layer").remarks[0]


def test_a_layer_norm_without_bias_has_none_in_its_formula(decoder, stroll):
    with_bias, without = (
        stroll(decoder(norm={"kind": "layernorm", "bias": bias})).section("A norm sets the scale").formula
        for bias in (True, False)
    )
    assert "gain and bias" in with_bias
    assert without.endswith("a learned gain: (x - μ) / sqrt(σ² + eps) · g")


def test_a_window_is_told_and_whether_the_block_has_it(decoder, stroll):
    plain = stroll(decoder()).section("Attention")
    assert plain.words.endswith("A token sees only itself and those before it.")
    assert "window" not in said(plain)
    everywhere = said(stroll(decoder(attention={"window": 4})).section("Attention"))
    assert "only itself and the 3 before it. Every block has this window of 4." in everywhere
    assert "the causal mask, a window of 4," in everywhere
    model = decoder(attention={"window": 4, "window_pattern": "LG"})
    local, everything = (said(stroll(model, layer=layer).section("Attention")) for layer in (0, 1))
    assert "the 3 before it. Block 0 is local, its window is 4 (window_pattern LG)" in local
    assert "those before it. Block 1 is global (window_pattern LG); local blocks" in everything
    assert "a window of 4," not in everything


@pytest.mark.parametrize(("window", "words"), [(1, "only itself."), (2, "itself and the one before it.")])
def test_small_windows_are_told_in_words(decoder, stroll, window, words):
    model = decoder(attention={"window": window})
    assert f"A token sees {'only ' if window > 1 else ''}{words}" in stroll(model).section("Attention").words


def test_an_encoder_hides_nothing_unless_it_has_a_window(encoder_decoder, stroll):
    plain = stroll(encoder_decoder()).section("Attention in the encoder")
    assert "Nothing is hidden." in plain.words
    walkthrough = stroll(encoder_decoder(attention={"window": 4}))
    encoder = walkthrough.section("Attention in the encoder")
    assert "only itself and the 3 before it, and as many after it." in encoder.words
    assert "hidden" not in encoder.words
    assert "the 3 before it." in walkthrough.section("Attention in the decoder").words
    assert "window" not in said(walkthrough.section("Attention to the source"))


def test_of_attentions_formula_what_is_used_is_told(decoder, encoder_decoder, stroll):
    settings = {"attention": {"qk_norm": True, "softcap": 5.0}, "position": {"kind": "alibi"}}
    plain, full = (
        stroll(model).section("Attention").remarks[0] for model in (decoder(), decoder(**settings))
    )
    assert plain == "Used here: a scale of 0.5, the causal mask, a key/value head for every 2 query heads."
    for words in ("(QK-norm)", "capped at ±5", "a bias by distance"):
        assert words in full
    cross = stroll(encoder_decoder(num_kv_heads=4, position={"kind": "t5"})).section(
        "Attention to the source"
    )
    assert cross.remarks[0] == "Used here: a scale of 0.5, a key/value head for each query head."


def test_the_heads_formula_is_this_models(decoder, stroll):
    plain, capped, padded = (
        stroll(decoder(**settings)).section("The next token")
        for settings in ({}, {"logit_softcap": 10.0}, {"vocab_multiple": 8})
    )
    assert plain.formula == "What turns states into logits: states · weightᵀ"
    assert "cap" not in plain.words
    assert capped.formula.endswith("weightᵀ, soft-capped")
    assert "squeezed between -10 and 10" in capped.words
    assert padded.formula.endswith("weightᵀ, the first vocab_size of them")
    assert "264 rows, a round number for speed; only the first 257 are ids" in padded.words


def test_the_embeddings_factor_is_told_where_there_is_one(decoder, stroll):
    plain, scaled = (
        stroll(decoder(scale_embeddings=scaled)).section("Ids become vectors") for scaled in (False, True)
    )
    assert plain.formula == "table[ids]: [B, T] → [B, T, D]"
    assert "sqrt" not in plain.words
    assert scaled.formula.endswith("[B, T, D], times sqrt(D)")
    assert "multiplied by sqrt(16) = 4.00" in scaled.words


def test_without_positions_the_encoder_knows_no_order(decoder, encoder_decoder, stroll):
    alone = stroll(decoder(position={"kind": "none"})).section("Where a token stands").words
    assert "encoder" not in alone
    assert "window" not in alone
    pair = stroll(encoder_decoder(position={"kind": "none"})).section("Where a token stands").words
    assert "cannot know the order of the source" in pair
    near = encoder_decoder(position={"kind": "none"}, attention={"window": 3})
    assert "cannot know" not in stroll(near).section("Where a token stands").words


def test_a_rotation_that_is_not_the_plain_one_is_told(decoder, stroll):
    plain, part, scaled = (
        stroll(decoder(position={"kind": "rope", **settings})).section("Where a token stands").words
        for settings in ({}, {"fraction": 0.5}, {"scaling": {"kind": "linear", "factor": 2.0}})
    )
    assert plain.endswith("far places.")
    assert "Only the first 2 of a head's 4 features turn." in part
    assert "(linear scaling)" in scaled


@pytest.mark.parametrize(
    ("width", "words"), [(40, "It widens the vector to 40"), (8, "It turns the vector into 8")]
)
def test_a_layer_widens_only_where_it_is_wider(decoder, stroll, width, words):
    model = decoder(feed_forward={"kind": "gelu", "d_ff": width})
    assert words in stroll(model).section("The feed-forward layer").words


def test_only_a_mixture_of_experts_speaks_of_experts(decoder, stroll):
    assert "expert" not in said(stroll(decoder()).section("The feed-forward layer"))
    moe = stroll(decoder(feed_forward={"kind": "moe", "num_experts": 4, "top_k": 1}))
    assert "each token to the one that suits it best" in moe.section("The feed-forward layer").words
    assert "feed-forward layer, V" not in moe.section("The shapes on the way").words


def test_a_clause_that_a_formula_does_not_have_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"Head: its formula .* has no ', halved' to leave out"):
        formula_of(Head, absent=(", halved",))


# Encoder-decoders -------------------------------------------------------------------------------------


def test_an_encoder_decoder_shows_three_attentions(encoder_decoder, stroll):
    walkthrough = stroll(encoder_decoder(), target="xyz")
    ids = walkthrough.section("Text becomes ids").numbers
    assert ids["source"]["tokens"] == list("To␣be,␣or␣not")
    assert ids["target"]["tokens"] == ["<begin>", "x", "y", "z"]
    sizes = {"Attention in the encoder": (13, 13), "Attention in the decoder": (4, 4)}
    for title, size in {**sizes, "Attention to the source": (4, 13)}.items():
        weights = torch.tensor(walkthrough.section(title).numbers["weights"])
        assert weights.shape == size
        assert weights.sum(dim=-1).tolist() == pytest.approx([1.0] * size[0], abs=1e-5)
        assert walkthrough.section(title).numbers["largest_difference_from_pass"] < 1e-5
    assert (torch.tensor(walkthrough.section("Attention in the encoder").numbers["weights"]) > 0).all()
    assert set(walkthrough.section("The residual stream grows").numbers) == {"encoder", "decoder"}


def test_the_source_changes_what_the_decoder_says(encoder_decoder, stroll):
    model = encoder_decoder()
    ends = [
        stroll(model, text, target="xyz").section("The next token").numbers for text in ("To be", "be To")
    ]
    assert ends[0] != ends[1]


def test_a_trained_encoder_decoder_reads_its_own_answer(encoder_decoder, byte_tokenizer):
    model = encoder_decoder()
    walkthrough = walk(model, byte_tokenizer, TEXT, origin=Origin("runs/mine", step=10))
    answer = model.generate(torch.tensor(list(TEXT.encode())), 12, stop_id=256)
    assert walkthrough.section("Text becomes ids").numbers["target"]["ids"] == [0, *answer.tolist()]
    assert "the model's own answer" in walkthrough.section("Text becomes ids").words


def test_an_untrained_one_reads_the_sentence_again(encoder_decoder, stroll):
    ids = stroll(encoder_decoder()).section("Text becomes ids").numbers
    assert ids["target"]["ids"] == [0, *TEXT.encode()]


def test_of_a_shorter_stack_the_last_block_is_shown(encoder_decoder, stroll):
    walkthrough = stroll(encoder_decoder(), layer=1)
    assert walkthrough.section("Attention in the encoder").numbers["block"] == 0
    assert walkthrough.section("Attention in the decoder").numbers["block"] == 1


# Where the weights come from --------------------------------------------------------------------------


def test_random_weights_are_called_random(decoder, byte_tokenizer):
    walkthrough = walk(decoder(), byte_tokenizer, TEXT, origin=Origin.random("preset quick", seed=3))
    assert (
        "preset quick with random weights (seed 3): it has learned nothing" in walkthrough.sections[0].words
    )


def test_trained_weights_are_told_with_their_step_and_loss(decoder, byte_tokenizer):
    origin = Origin("runs/quick-001", step=600, loss=1.5)
    section = walk(decoder(), byte_tokenizer, TEXT, origin=origin).sections[0]
    assert "those of runs/quick-001 after 600 updates; its validation loss is 1.5000 nats" in section.words
    assert "4.5 equally likely tokens" in section.words
    assert "random" not in section.words
    assert section.numbers["origin"]["validation_loss"] == 1.5


# What cannot be shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": ""}, r"--text: the text is empty"),
        ({"text": "x" * 41}, r"--text: the text has 41 tokens, more than the 40 of the model's context"),
        ({"layer": 2}, r"--layer 2: the model has 2 blocks, 0 to 1"),
        ({"layer": -1}, r"--layer -1: the model has 2 blocks"),
        ({"head": 4}, r"--head 4: the model has 4 attention heads, 0 to 3"),
        ({"target": "x"}, r"--target is what an encoder-decoder writes, and this model is a decoder"),
    ],
)
def test_what_cannot_be_shown_is_refused(decoder, stroll, settings, message):
    with pytest.raises(ConfigError, match=message):
        stroll(decoder(), **settings)


def test_a_text_longer_than_the_pictures_is_refused(decoder, stroll):
    model = decoder(max_seq_len=LONGEST + 10)
    stroll(model, "x" * LONGEST)
    with pytest.raises(
        ConfigError, match=f"has {LONGEST + 1} tokens, more than the {LONGEST} that the demo draws"
    ):
        stroll(model, "x" * (LONGEST + 1))


def test_a_target_leaves_room_for_its_beginning(encoder_decoder, stroll):
    model = encoder_decoder()
    stroll(model, target="x" * 39)
    with pytest.raises(ConfigError, match="--target: the text has 40 tokens, more than the 39"):
        stroll(model, target="x" * 40)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(decoder):
    with pytest.raises(ConfigError, match=r"\(gpt2\) has 50257 ids and the model only 257"):
        walk(decoder(), build("gpt2"), TEXT, origin=Origin.random("x", seed=0))


def test_half_a_character_is_refused(decoder, stroll):
    with pytest.raises(TokenizerError, match="surrogate"):
        stroll(decoder(), "caf\udce9")


def test_the_default_sentence_is_cut_to_a_small_context_and_refused_where_it_cannot_be_read(decoder, stroll):
    assert stroll(decoder(max_seq_len=5), None).text == "To be"
    digits = build("char", lambda: ["0123456789"])
    with pytest.raises(TokenizerError, match=r"the demo's own sentence cannot be read by this model.*--text"):
        walk(decoder(), digits, origin=Origin.random("x", seed=0))
    walk(decoder(), digits, "123", origin=Origin.random("x", seed=0))


def test_an_unknown_section_is_named(decoder, stroll):
    with pytest.raises(KeyError, match="no section 'Nothing'"):
        stroll(decoder()).section("Nothing")
