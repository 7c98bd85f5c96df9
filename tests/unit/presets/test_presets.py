"""The table of presets against the functions behind it, and every size a preset promises."""

import re

import pytest

from pellucid.errors import ConfigError
from pellucid.model.stats import count_parameters, on_meta
from pellucid.presets import MODELS, RUNS, model_preset, run_preset

MILLION = 1_000_000


def parameters(model) -> int:
    return count_parameters(on_meta(model)).total


# The table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
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


@pytest.mark.parametrize("name", [name for name, preset in RUNS.items() if preset.quick])
def test_the_quick_sibling_is_another_run_preset_of_less_work(name):
    def work(config) -> int:
        assert config.train.steps is not None
        model = config.model.model_copy(update={"vocab_size": config.model.vocab_size or 257})
        return config.train.steps * config.train.batch_tokens * count_parameters(on_meta(model)).non_embedding

    assert run_preset(name, quick=True) == run_preset(RUNS[name].quick)
    assert work(run_preset(name, quick=True)) < work(run_preset(name))


def test_quick_is_refused_where_there_is_nothing_smaller():
    with pytest.raises(ConfigError, match="'debug' has no smaller sibling"):
        run_preset("debug", quick=True)


@pytest.mark.parametrize(("build", "table"), [(run_preset, RUNS), (model_preset, MODELS)])
def test_an_unknown_name_gets_the_nearest_one_and_the_list(build, table):
    with pytest.raises(ConfigError, match=r"'sota-125M'; did you mean 'sota-125m'\?") as error:
        build("sota-125M")
    assert all(name in str(error.value) for name in table)


# What they promise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions", "share"),
    [
        ("tinystories-22m", 22.5, 0.01),
        ("sota-16m", 16, 0.02),
        ("sota-125m", 124, 0.01),
        ("sota-250m", 250, 0.02),
    ],
)
def test_a_model_has_the_size_of_its_name(name, millions, share):
    assert parameters(model_preset(name)) == pytest.approx(millions * MILLION, rel=share)


@pytest.mark.parametrize("name", MODELS)
def test_the_summary_states_the_measured_size(name):
    stated = re.match(r"([\d.]+)M: d (\d+), (\d+) layers", MODELS[name].summary)
    assert stated is not None
    model = model_preset(name)
    assert float(stated[1]) == round(parameters(model) / MILLION, 1)
    assert (int(stated[2]), int(stated[3])) == (model.d_model, model.num_layers)


@pytest.mark.parametrize("name", [name for name in RUNS if re.search(r"\d+M parameters", RUNS[name].summary)])
def test_a_run_states_the_size_of_its_model(name):
    (stated,) = re.findall(r"(\d+)M parameters", RUNS[name].summary)
    assert int(stated) == round(parameters(run_preset(name).model) / MILLION)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_trains_the_model_of_its_name(name):
    assert run_preset(name).model == model_preset(name)


def test_tinystories_is_the_size_that_learned_stories():
    model = model_preset("tinystories-22m")
    assert (model.d_model, model.num_layers, model.vocab_size) == (384, 8, 21_504)
    tokenizer = run_preset("tinystories-22m").data.tokenizer.build()
    assert tokenizer.vocab_size == model.vocab_size


@pytest.mark.parametrize("name", ["sota-16m", "sota-125m", "sota-250m"])
def test_a_sota_model_has_exactly_the_ids_of_its_tokenizer(name):
    config = run_preset(name)
    assert config.data.tokenizer.build().vocab_size == config.model.vocab_size == 50_257
    assert config.model.tie_embeddings


def test_sota_16m_runs_a_thousand_steps():
    assert run_preset("sota-16m").train.steps == 1000


def test_sota_125m_has_the_shape_of_gpt2_small():
    model = model_preset("sota-125m")
    assert (model.d_model, model.num_layers, model.num_heads) == (768, 12, 12)


@pytest.mark.parametrize("name", ["debug", "quick", "shakespeare-char"])
def test_the_small_runs_need_no_data_but_the_built_in_corpus(name):
    data = run_preset(name).data
    assert data.path == "builtin:shakespeare"
    assert data.tokenizer.kind in ("byte", "char")
