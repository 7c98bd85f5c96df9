"""The pages under docs/ show the sources' own lines, name files that exist, and give overrides that work."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pellucid.config import from_tree, override, to_tree
from pellucid.presets import run_preset
from pellucid.train.config import RunConfig

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def include() -> ModuleType:
    spec = importlib.util.spec_from_file_location("include", ROOT / "docs/include.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_in_the_pages_is_that_of_the_sources(include: ModuleType) -> None:
    pages = include.pages()
    assert ROOT / "docs/explanation/architecture.md" in pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text == include.refreshed(text), f"{page.name} is stale: python docs/include.py"


def test_a_page_that_differs_is_noticed(include: ModuleType) -> None:
    assert include.refreshed(ARCHITECTURE.replace("F.linear", "F.bilinear")) == ARCHITECTURE
    assert "F.linear" in ARCHITECTURE
    mark = "<!-- code: src/pellucid/model/norms/rmsnorm.py RMSNorm.forward -->\n"
    assert "F.rms_norm" in include.refreshed(mark)
    with pytest.raises(SystemExit, match=r"has no RMSNorm\.gone"):
        include.refreshed(mark.replace("forward", "gone"))


def test_architecture_names_files_that_exist() -> None:
    files = set(re.findall(r"`(src/[\w/.]+)`", ARCHITECTURE))
    assert len(files) >= 12
    for file in files:
        assert (ROOT / file).exists(), file


def test_every_step_has_its_parts() -> None:
    steps = re.split(r"^## \d+\. ", ARCHITECTURE, flags=re.MULTILINE)[1:]
    titles = [step.split(":")[0].split("\n")[0].lower() for step in steps]
    order = [
        "interface",
        "norms",
        "positions",
        "masks",
        "attention",
        "cache",
        "feed-forward",
        "block",
        "decoder",
    ]
    assert [title.removeprefix("the ") for title in titles] == [*order, "encoder-decoder", "decoding"]
    for step in steps:
        idea = step.split("\n\n")[1]
        assert 4 <= len(re.findall(r"[.](?:\s|$)", idea)) <= 6, idea
        for part in ("```python", "File: ", "Source: ", "To experiment: "):
            assert part in step, (step[:40], part)
        formula = step.split("\n\n")[2]
        assert not formula.startswith("<!--"), (step[:40], "no formula")
        assert re.search(r"[=→←≤]", formula), formula


OVERRIDES = [
    *dict.fromkeys(
        word
        for line in ARCHITECTURE.splitlines()
        if line.startswith("To experiment")
        for word in re.findall(r"`((?:model|train|data)\.[\w.]+=[^`]+)`", line)
    )
]


@pytest.mark.parametrize("word", OVERRIDES)
def test_what_to_change_can_be_changed(word: str) -> None:
    before = {
        "model.kind": ["data.objective.kind=prefix"],
        "window_pattern": ["model.attention.window=64"],
        "objective": ["model.kind=encoder_decoder"],
    }
    words = [*(needed for key, extra in before.items() if key in word for needed in extra), word]
    config = from_tree(RunConfig, override(to_tree(run_preset("debug")), words))
    key, _, value = word.partition("=")
    found: object = to_tree(config)
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert str(found).lower() in (value.lower(), f"{value}.0")
