"""The strategies by name: each is valid, does what it says, and is told apart from the presets."""

import pytest

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.generate.sampling import PRESETS, SamplingConfig
from pellucid.generate.strategies import STRATEGIES, strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_settings_are_those_of_sampling(name):
    sampling = from_tree(SamplingConfig, strategy(name).settings)
    assert all(getattr(sampling, key) == value for key, value in strategy(name).settings.items())
    assert strategy(name).description


def test_a_strategy_sets_what_its_name_says():
    assert set(strategy("top_k_top_p").settings) == {"top_k", "top_p"}
    for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
        assert set(strategy(name).settings) == {name}
    assert from_tree(SamplingConfig, strategy("sampling").settings) == SamplingConfig()


def test_no_two_do_the_same():
    configs = [from_tree(SamplingConfig, each.settings) for each in STRATEGIES.values()]
    assert all(config not in configs[:place] for place, config in enumerate(configs))


def test_a_name_that_is_a_preset_too_means_the_same():
    shared = STRATEGIES.keys() & PRESETS.keys()
    assert "greedy" in shared
    for name in shared:
        assert from_tree(SamplingConfig, STRATEGIES[name].settings) == PRESETS[name]


def test_an_unknown_name_is_told_its_nearest():
    with pytest.raises(
        ConfigError, match=r"no sampling strategy 'topk'; did you mean 'top_k'\? \(strategies: greedy"
    ):
        strategy("topk")
