"""The tables of presets against the functions behind them, and every size a preset promises."""

import re
from importlib import import_module

import pytest

from pellucid.errors import ConfigError
from pellucid.model import EncoderDecoderConfig
from pellucid.model.stats import count_parameters, on_meta
from pellucid.presets import MODELS, RUNS, listing, model_preset, run_preset

MILLION = 1_000_000
EVERY_RUN = [*RUNS, *(name for name in MODELS if name not in RUNS)]
ENCODER_DECODERS = ("encdec-small", "encdec-medium", "encdec-large", "t5-small")
PUBLISHED = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "smollm2-135m": 134_515_008,
    "t5-small": 76_961_152,
}


def parameters(model) -> int:
    return count_parameters(on_meta(model)).total


# The tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_RUN)
def test_a_run_preset_builds_a_run_that_is_named_after_it(name):
    config = run_preset(name)
    assert config.run.name == name
    assert config.run.dir is None


@pytest.mark.parametrize("name", MODELS)
def test_a_model_preset_builds_and_knows_its_vocabulary(name):
    assert model_preset(name).vocab_size is not None


@pytest.mark.parametrize("preset", [*RUNS.values(), *MODELS.values()], ids=lambda p: p.function)
def test_a_summary_is_one_short_line(preset):
    assert 0 < len(preset.summary) <= 80
    assert "\n" not in preset.summary


def test_the_listing_names_every_preset_once_and_keeps_runs_and_models_apart():
    lines = [line.split(maxsplit=1) for line in listing().splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == EVERY_RUN
    assert dict(lines) == {name: (RUNS.get(name) or MODELS[name]).summary for name in EVERY_RUN}
    assert all(len(line) <= 100 for line in listing().splitlines())


@pytest.mark.parametrize("name", [name for name in EVERY_RUN if (MODELS | RUNS)[name].quick])
def test_the_quick_sibling_is_another_run_preset_of_less_work(name):
    def work(config) -> float:
        model = config.model.model_copy(update={"vocab_size": config.model.vocab_size or 257})
        if config.train.steps is not None:
            tokens = config.train.steps * config.train.batch_tokens
        else:
            tokens = config.train.epochs * config.data.tokens_per_epoch
        return tokens * count_parameters(on_meta(model)).non_embedding

    sibling = run_preset(name, quick=True)
    assert sibling == run_preset((MODELS | RUNS)[name].quick)
    assert sibling.model.kind == run_preset(name).model.kind
    assert work(sibling) < work(run_preset(name))


@pytest.mark.parametrize("name", ["debug", "encdec-quick"])
def test_quick_is_refused_where_there_is_nothing_smaller(name):
    with pytest.raises(ConfigError, match=f"'{name}' has no smaller sibling"):
        run_preset(name, quick=True)


@pytest.mark.parametrize(("build", "names"), [(run_preset, EVERY_RUN), (model_preset, MODELS)])
def test_an_unknown_name_gets_the_nearest_one_and_the_list(build, names):
    with pytest.raises(ConfigError, match=r"'sota-125M'; did you mean 'sota-125m'\?") as error:
        build("sota-125M")
    assert all(name in str(error.value) for name in names)


# Sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions", "share"),
    [
        ("tinystories-22m", 22.5, 0.01),
        ("sota-16m", 16, 0.02),
        ("sota-125m", 124, 0.01),
        ("sota-250m", 250, 0.02),
        ("encdec-small", 125, 0.11),
        ("encdec-medium", 350, 0.04),
        ("encdec-large", 750, 0.01),
    ],
)
def test_a_model_has_the_size_of_its_name(name, millions, share):
    assert parameters(model_preset(name)) == pytest.approx(millions * MILLION, rel=share)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_a_published_model_has_its_published_size(name, count):
    assert parameters(model_preset(name)) == count


@pytest.mark.parametrize("name", MODELS)
def test_the_summary_states_the_measured_size(name):
    stated = re.match(r"([\d.]+)M: d (\d+), (?:(\d+) \+ )?(\d+) layers", MODELS[name].summary)
    assert stated is not None
    model = model_preset(name)
    assert stated[1] == f"{parameters(model) / MILLION:.1f}"
    layers = (
        [model.num_encoder_layers, model.num_decoder_layers]
        if isinstance(model, EncoderDecoderConfig)
        else [model.num_layers]
    )
    assert [int(number) for number in stated.groups()[2:] if number] == layers
    assert int(stated[2]) == model.d_model


@pytest.mark.parametrize("name", MODELS)
def test_the_docstring_states_the_measured_size_to_the_last_parameter(name):
    module, _, function = MODELS[name].function.partition(":")
    text = getattr(import_module(f"pellucid.presets.{module}"), function).__doc__
    stated = re.match(r"([\d,]+) parameters", text)
    assert stated is not None
    counts = count_parameters(on_meta(model_preset(name)))
    assert stated[1] == f"{counts.total:,}"
    if table := re.search(r"of which ([\d,]+) are the token table", text):
        assert table[1] == f"{counts.by_role['embedding']:,}"


@pytest.mark.parametrize("name", [name for name in RUNS if re.search(r"\d+M parameters", RUNS[name].summary)])
def test_a_run_states_the_size_of_its_model(name):
    (stated,) = re.findall(r"(\d+)M parameters", RUNS[name].summary)
    assert int(stated) == round(parameters(run_preset(name).model) / MILLION)


@pytest.mark.parametrize(
    ("name", "meant"), [("encdec-small", 125), ("encdec-medium", 350), ("encdec-large", 750)]
)
def test_no_other_tying_brings_an_encoder_decoder_closer_to_what_it_is_meant_as(name, meant):
    model = model_preset(name)
    assert model.vocab_size == 50_257 + 100

    def distance(model) -> float:
        return abs(parameters(model) - meant * MILLION)

    for shares in (True, False):
        for ties in (True, False):
            other = model.model_copy(update={"share_embeddings": shares, "tie_embeddings": ties})
            assert distance(model) <= distance(other)


# Shapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "d_model", "layers", "heads"),
    [
        ("gpt2-small", 768, 12, 12),
        ("gpt2-medium", 1024, 24, 16),
        ("gpt2-large", 1280, 36, 20),
        ("gpt2-xl", 1600, 48, 25),
        ("edu-6l", 256, 6, 4),
        ("edu-4l", 128, 4, 4),
        ("sota-125m", 768, 12, 12),
        ("tinystories-1m", 64, 8, 4),
        ("tinystories-8m", 256, 8, 4),
        ("tinystories-22m", 384, 8, 6),
        ("tinystories-33m", 768, 4, 12),
        ("smollm2-135m", 576, 30, 9),
        ("encdec-small", 768, 6, 12),
        ("encdec-medium", 1024, 8, 16),
        ("encdec-large", 1280, 12, 20),
        ("t5-small", 512, 8, 6),
    ],
)
def test_a_model_has_the_shape_that_its_name_stands_for(name, d_model, layers, heads):
    model = model_preset(name)
    assert (model.d_model, model.num_heads) == (d_model, heads)
    if isinstance(model, EncoderDecoderConfig):
        assert model.num_encoder_layers == model.num_decoder_layers == layers
    else:
        assert model.num_layers == layers


@pytest.mark.parametrize("name", ["gpt2-small", "gpt2-xl", "edu-6l", "edu-4l"])
def test_the_classic_models_have_gpt2s_parts(name):
    model = model_preset(name)
    assert (model.norm.kind, model.norm.eps, model.norm.bias) == ("layernorm", 1e-5, True)
    assert (model.position.kind, model.feed_forward.kind) == ("learned", "gelu")
    assert model.feed_forward.approximate
    assert model.bias
    assert model.tie_embeddings
    assert model.vocab_size == 50_257


@pytest.mark.parametrize("name", ["encdec-small", "encdec-medium", "encdec-large"])
def test_the_encoder_decoders_have_the_modern_parts(name):
    model = model_preset(name)
    assert (model.block, model.norm.kind) == ("pre_norm", "rmsnorm")
    assert (model.position.kind, model.feed_forward.kind) == ("rope", "geglu")


def test_t5_small_is_version_1_1():
    model = model_preset("t5-small")
    assert (model.position.kind, model.feed_forward.kind, model.norm.eps) == ("t5", "geglu", 1e-6)
    assert (model.head_dim, model.feed_forward.d_ff, model.vocab_size) == (64, 1024, 32_128)
    assert (model.attention.scale, model.tie_embeddings, model.share_embeddings) == (1.0, False, True)
    assert model.start_id == 0


def test_smollm2_has_its_published_config():
    model = model_preset("smollm2-135m")
    assert (model.num_kv_heads, model.feed_forward.d_ff, model.vocab_size) == (3, 1536, 49_152)
    assert (model.position.theta, model.norm.eps, model.max_seq_len) == (100_000, 1e-5, 8192)
    assert model.tie_embeddings


def test_llama_tiny_groups_its_queries_and_has_a_free_head():
    model = model_preset("llama-tiny")
    assert model.num_kv_heads == 2 < model.num_heads
    assert not model.tie_embeddings


# Runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_run_trains_the_model_of_its_name(name):
    assert run_preset(name).model == model_preset(name)


@pytest.mark.parametrize("name", MODELS)
def test_a_models_run_has_exactly_the_ids_of_its_tokenizer(name):
    config = run_preset(name)
    assert config.data.tokenizer.build().vocab_size == config.model.vocab_size


@pytest.mark.parametrize("name", [*ENCODER_DECODERS, "encdec-quick"])
def test_an_encoder_decoders_run_can_cut_spans_out_of_its_windows(name):
    config = run_preset(name)
    assert config.data.objective.kind == "span_corruption"
    seq_len, tokenizer = config.model.max_seq_len, config.data.tokenizer.build()
    objective = config.data.objective.build(
        tokenizer=tokenizer, is_encoder_decoder=True, seq_len=seq_len, start_id=0
    )
    assert objective.encoder_len <= seq_len
    assert objective.decoder_len <= seq_len


@pytest.mark.parametrize("name", [name for name in MODELS if name not in RUNS])
def test_the_recipe_by_size_is_what_its_table_says(name):
    config, count = run_preset(name), parameters(model_preset(name))
    train = config.train
    assert train.steps * train.batch_tokens == pytest.approx(20 * count, rel=0.03)
    windows = train.batch_tokens // config.model.max_seq_len
    assert windows & (windows - 1) == 0
    assert 8192 <= train.batch_tokens <= 524_288
    if 10 * MILLION < count < 500 * MILLION:
        assert 2**-0.5 <= train.batch_tokens / (count / 1000) <= 2**0.5
        assert 14_000 < train.steps < 29_000
    assert train.lr == pytest.approx(min(2e-3, 6e-4 * (125e6 / count) ** 0.5), rel=0.05)
    assert train.schedule.warmup_steps == train.steps // 30


def test_gpt2_small_is_trained_about_as_gpt3s_smallest_was():
    train = run_preset("gpt2-small").train
    assert (train.lr, train.batch_tokens, train.steps) == (6e-4, 131_072, 19_000)


def test_the_last_ids_of_an_encoder_decoder_are_a_hundred_sentinels():
    tokenizer = run_preset("encdec-small").data.tokenizer.build()
    assert [tokenizer.special_tokens[f"<extra_id_{n}>"] for n in (0, 99)] == [50_257, 50_356]


def test_sota_16m_runs_a_thousand_steps():
    assert run_preset("sota-16m").train.steps == 1000


@pytest.mark.parametrize(
    ("name", "beside", "steps", "warmup"),
    [("sota-125m-classic", "sota-125m", 100_000, 4000), ("sota-16m-classic", "sota-16m", 1000, 40)],
)
def test_the_classic_recipe_is_exactly_this_and_all_else_the_default_one(name, beside, steps, warmup):
    run, default = run_preset(name), run_preset(beside)
    train, optimizer, schedule = run.train, run.train.optimizer, run.train.schedule
    assert (train.lr, train.steps, train.label_smoothing) == (1e-3, steps, 0.1)
    assert (optimizer.kind, optimizer.beta1, optimizer.beta2) == ("adamw", 0.9, 0.98)
    assert optimizer.weight_decay == 0.01
    assert (schedule.kind, schedule.warmup_steps) == ("cosine", warmup)
    assert (run.model.dropout, train.final_dropout) == (0.1, 0.0)
    assert run.model.model_copy(update={"dropout": 0.0}) == default.model
    assert run.data == default.data
    same = {
        "batch_tokens",
        "seq_len",
        "grad_clip",
        "z_loss",
        "seed",
        "eval_every",
        "eval_tokens",
        "precision",
    }
    assert train.model_dump(include=same) == default.train.model_dump(include=same)


def test_the_classic_quick_mode_is_the_classic_recipe_in_small():
    assert run_preset("sota-125m-classic", quick=True) == run_preset("sota-16m-classic")
    assert run_preset("sota-16m-classic").train.steps == run_preset("sota-16m").train.steps


def test_translation_is_trained_as_the_first_transformer_was():
    run = run_preset("translation-base")
    train, optimizer, schedule = run.train, run.train.optimizer, run.train.schedule
    assert (optimizer.kind, optimizer.beta1, optimizer.beta2) == ("adamw", 0.9, 0.98)
    assert (optimizer.eps, optimizer.weight_decay) == (1e-9, 0.0)
    assert (schedule.kind, schedule.warmup_steps) == ("inverse_sqrt", 4000)
    assert (train.label_smoothing, run.model.dropout, run.data.objective.kind) == (0.1, 0.1, "paired")
    rate = train.lr * schedule.factor(49_999, 0.5)
    assert rate == pytest.approx(run.model.d_model**-0.5 * 50_000**-0.5, rel=0.01)


def test_translation_can_begin_with_what_encdec_small_has_learned():
    ours, theirs = run_preset("translation-base"), run_preset("encdec-small")
    assert ours.model.model_copy(update={"dropout": 0.0}) == theirs.model
    assert ours.data.tokenizer == theirs.data.tokenizer


@pytest.mark.parametrize("name", ["debug", "quick", "encdec-quick", "shakespeare-char"])
def test_the_small_runs_need_no_data_but_the_built_in_corpus(name):
    data = run_preset(name).data
    assert data.path == "builtin:shakespeare"
    assert data.tokenizer.kind in ("byte", "char")


@pytest.mark.parametrize(
    ("name", "layers", "tokens"), [("edu-fineweb", 6, 100_000_000), ("edu-fineweb-quick", 4, 10_000_000)]
)
def test_fineweb_edu_is_streamed_by_its_tokens_and_accumulates(name, layers, tokens):
    run = run_preset(name)
    assert run.data.path == "hub:HuggingFaceFW/fineweb-edu:sample-10BT"
    assert (run.data.stream.enabled, run.data.tokens_per_epoch, run.train.epochs) == (True, tokens, 1)
    assert run.data.tokenizer.kind == "cl100k_base"
    assert run.model.num_layers == layers
    windows = run.train.batch_tokens // run.model.max_seq_len
    assert windows // run.train.micro_batch == 16


def test_tinystories_comes_from_the_hub():
    run = run_preset("tinystories")
    assert run.data.path == "hub:roneneldan/TinyStories"
    assert run.model == run_preset("tinystories-22m").model
