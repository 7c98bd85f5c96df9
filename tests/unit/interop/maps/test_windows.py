import pytest

from pellucid.config import from_tree
from pellucid.errors import CheckpointError
from pellucid.interop.maps.windows import GLOBAL, LOCAL, layer_types, window_from_hf
from pellucid.model import DecoderConfig

WORDS = {"L": LOCAL, "G": GLOBAL}


@pytest.mark.parametrize(
    ("pattern", "num_layers", "shortest"),
    [("L", 3, "L"), ("LG", 5, "LG"), ("GL", 4, "GL"), ("LLG", 7, "LLG"), ("LGLG", 6, "LG"), ("LG", 1, "L")],
)
def test_a_pattern_becomes_a_list_and_the_shortest_pattern_again(
    pattern: str, num_layers: int, shortest: str
) -> None:
    config = from_tree(
        DecoderConfig, {"num_layers": num_layers, "attention": {"window": 7, "window_pattern": pattern}}
    )
    types = layer_types(config)
    assert types == [WORDS[(pattern * 7)[layer]] for layer in range(num_layers)]
    assert window_from_hf(types, 7, num_layers) == {"window": 7, "window_pattern": shortest}


def test_a_list_without_rhythm_is_a_pattern_of_all_layers() -> None:
    types = [WORDS[letter] for letter in "LLGLG"]
    assert window_from_hf(types, 7, 5) == {"window": 7, "window_pattern": "LLGLG"}


def test_a_window_that_no_layer_has_is_none() -> None:
    assert window_from_hf([GLOBAL, GLOBAL], 7, 2) == {"window": None, "window_pattern": "L"}


@pytest.mark.parametrize("types", [[LOCAL], ["chunked_attention", LOCAL], [[], []], LOCAL], ids=str)
def test_a_list_that_does_not_fit_is_refused(types: object) -> None:
    with pytest.raises(CheckpointError, match=r"^config\.json: layer_types: 2 words \(num_hidden_layers\)"):
        window_from_hf(types, 7, 2)


def test_a_window_without_a_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"^config\.json: sliding_window: a number is needed"):
        window_from_hf([LOCAL, GLOBAL], None, 2)
