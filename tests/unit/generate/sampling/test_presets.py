"""The named settings."""

import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.generate.sampling import PRESETS, Chooser, SamplingConfig, Written, preset
from pellucid.generate.sampling.presets import TABLE, listing


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_is_the_config_of_its_settings(name):
    assert preset(name) is PRESETS[name]
    assert preset(name) == SamplingConfig(**TABLE[name].settings)


def test_the_names_that_people_know_are_there():
    assert {"greedy", "precise", "balanced", "creative"} <= set(PRESETS)
    assert list(PRESETS) == list(TABLE)
    assert len(PRESETS) == len(TABLE)
    assert len({config.model_dump_json() for config in PRESETS.values()}) == len(PRESETS)


def test_no_preset_sets_what_is_not_about_the_choice():
    """So that a command can lay a preset under its own length, seed and stops."""
    assert not {"seed", "stop", "max_new_tokens"} & {key for each in TABLE.values() for key in each.settings}


def test_presets_go_from_predictable_to_varied():
    logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))
    written = Written(torch.zeros((1, 0), dtype=torch.int64), None, torch.tensor([0]))
    entropies = [
        torch.special.entr(Chooser(PRESETS[name], [0]).probabilities(logits, written)).sum().item()
        for name in ("greedy", "precise", "balanced", "creative")
    ]
    assert entropies[0] == 0
    assert entropies == sorted(set(entropies))


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no sampling preset 'blanced'; did you mean 'balanced'\?.*greedy"):
        preset("blanced")


def test_the_listing_has_a_line_for_each():
    lines = listing().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    assert max(map(len, lines)) < 80
