"""CONTRIBUTING's recipes for a norm, a position scheme and a feed-forward layer work as they stand.

Each is followed in a copy of the sources: one new file, one word in the union. Then the contract tests run
over that copy and a model with the new part is trained.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python file=(\S+)\n(.*?)^```", RECIPES, re.MULTILINE | re.DOTALL))
WORDS = re.findall(
    r"^2\. In `(model/\w+/__init__\.py)`, import `(\w+)` and add the word to `(\w+)`", RECIPES, re.MULTILINE
)


def add_word(sources: Path, registry: str, module: Path, word: str, union: str) -> None:
    """Import the config in the union's file and join it: the one line and the one word of the recipe."""
    path = sources / "pellucid" / registry
    text = path.read_text(encoding="utf-8")
    name = ".".join(module.relative_to("src").with_suffix("").parts)
    joined, count = re.subn(
        rf"(^{union} = Annotated\[\s*.*?)(,?\s*Field\(discriminator)",
        rf"\1 | {word}\2",
        text.replace("\nfrom pydantic", f"\nfrom {name} import {word}\nfrom pydantic", 1),
        flags=re.MULTILINE | re.DOTALL,
    )
    assert count == 1, f"{registry} has no union {union}"
    path.write_text(joined, encoding="utf-8")


def test_there_is_a_recipe_for_each_union() -> None:
    assert {union for _, _, union in WORDS} == {"NormConfig", "PositionConfig", "FeedForwardConfig"}
    assert len(FILES) == len(WORDS)


@pytest.mark.parametrize(("file", "word"), [*zip(FILES, WORDS, strict=True)], ids=lambda value: value[-1])
def test_recipe(file: str, word: tuple[str, str, str], tmp_path: Path) -> None:
    sources = tmp_path / "src"
    shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__"))
    assert not (tmp_path / file).exists()
    (tmp_path / file).write_text(FILES[file], encoding="utf-8")
    registry, config, union = word
    add_word(sources, registry, Path(file), config, union)

    kind = re.search(r'kind: Literal\["(\w+)"\]', FILES[file])
    assert kind is not None
    environment = {
        **os.environ,
        "PYTHONPATH": str(sources),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run("-c", "import pellucid; print(pellucid.__file__)", cwd=tmp_path)
    assert where.startswith(str(sources)), "the copy must be what is tested"
    names = ("model_parts", "language_models", "cached_equals_uncached")
    contracts = [f"tests/contracts/test_{name}.py" for name in names]
    options = ["-k", f"{kind[1]} and not compiled", "-p", "no:cacheprovider", "-p", "no:randomly", "-n0"]
    report = run("-m", "pytest", *contracts, *options, cwd=ROOT)
    passed = re.search(r"(\d+) passed", report)
    assert passed is not None
    assert int(passed[1]) >= 20, report
    field = registry.split("/")[1].removesuffix("s").replace("feedforward", "feed_forward")
    words = [f"model.{field}.kind={kind[1]}", "train.steps=2", "train.eval_every=2"]
    run("-m", "pellucid", "train", "debug", *words, "run.dir=run", cwd=tmp_path)
