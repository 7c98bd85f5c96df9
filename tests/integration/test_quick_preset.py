"""What `make train-quick` promises: minutes, and then text that looks like the corpus and is not copied from it."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pellucid.data.sources import documents
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.presets import run_preset
from pellucid.train.run_files import read_facts

MINUTE = 60
BITS_PER_BYTE = 2.6
"""The validation score at the end is below this, which is what the judge below needs for the same text."""


# An independent judge --------------------------------------------------------------------------------


class CharacterModel:
    """Characters predicted from up to four before them, by interpolated Witten-Bell smoothing.

    p(c | h) = (count(h c) + kinds(h) · p(c | h without its first character)) / (count(h) + kinds(h)), where
    kinds(h) is how many different characters have followed h; below the empty context, every one of the
    alphabet is equally likely.  Source: Witten & Bell 1991, method C; Chen & Goodman 1998, section 2.5.
    """

    def __init__(self, text: str, order: int = 5) -> None:
        self.order = order
        self.alphabet_size = len(set(text)) + 1  # and one for all it has never seen
        self.counts = Counter(text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1))
        self.followers: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        for gram, count in self.counts.items():
            self.followers[gram[:-1]] += count
            self.kinds[gram[:-1]] += 1

    def probability(self, character: str, context: str) -> float:
        """Of a character after the last `order` - 1 characters of a context."""
        probability = 1 / self.alphabet_size
        for length in range(min(len(context), self.order - 1) + 1):
            known = context[len(context) - length :]
            if not self.followers[known]:
                break
            count, kinds = self.counts[known + character], self.kinds[known]
            probability = (count + kinds * probability) / (self.followers[known] + kinds)
        return probability

    def bits_per_character(self, text: str) -> float:
        total = sum(
            math.log2(self.probability(text[i], text[max(0, i - self.order + 1) : i]))
            for i in range(len(text))
        )
        return -total / len(text)


def longest_copied_span(text: str, source: str, *, at_least: int) -> str:
    """The longest part of a text that is in the source, or nothing where none has so many characters."""
    known = {source[i : i + at_least] for i in range(len(source) - at_least + 1)}
    longest, start = "", 0
    while start + at_least <= len(text):
        if text[start : start + at_least] in known:
            end = start + at_least
            while end < len(text) and text[start : end + 1] in source:
                end += 1
            longest = max(longest, text[start:end], key=len)
        start += 1
    return longest


def test_the_judge_is_a_distribution():
    judge = CharacterModel("abracadabra" * 3)
    for context in ("", "a", "abra", "zzzz", "xyza"):
        known = sum(judge.probability(c, context) for c in "abcdr")
        assert known + judge.probability("?", context) == pytest.approx(1)


def test_the_judge_prefers_what_it_has_read():
    judge = CharacterModel("the cat sat on the mat. " * 20)
    assert judge.bits_per_character("the mat sat on the cat. ") < 1.5
    assert judge.bits_per_character("xq zvk jw") > 3


def test_copied_spans_are_found():
    source = "To be, or not to be, that is the question: whether 'tis nobler"
    assert (
        longest_copied_span("So that is the question: when?", source, at_least=10)
        == " that is the question: whe"
    )
    assert longest_copied_span("something else entirely", source, at_least=10) == ""


# The trained model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    training: str
    held_out: str

    @classmethod
    def of_the_corpus(cls) -> "Texts":
        (corpus,) = documents(BuiltinSource("shakespeare"), whole=True)
        text = corpus.text
        border = int(len(text) * 0.9)
        return cls(text[:border], text[border:])


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick preset, trained once by the command, on two threads; what it wrote, and how it went."""
    work = tmp_path_factory.mktemp("quick")
    environment = {**os.environ, "OMP_NUM_THREADS": str(min(2, os.cpu_count() or 1))}

    def pellucid(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pellucid", *words],
            cwd=work, env=environment, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    trained = pellucid("train", "quick")
    directory = work / "runs/quick-001"
    # By the model's own distribution: a lower temperature, or leaving out the unlikely, writes likelier text.
    words = ["--prompt", "\n", "--preset", "creative", "--top-p", "1", "--max-new-tokens", "3000", "--json"]
    written = pellucid("generate", str(directory), *words)
    return SimpleNamespace(
        said=trained,
        facts=list(read_facts(directory / "metrics.jsonl")),
        sample=json.loads(written.stdout)["text"],
        directory=directory,
    )


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts.of_the_corpus()


@pytest.mark.slow
@pytest.mark.timeout(15 * MINUTE)
class TestTheQuickPreset:
    def test_it_ends_with_a_sample_and_the_next_command(self, quick):
        assert quick.said.stdout.startswith("\nWhat it writes now:\n")
        assert "next: pellucid generate runs/quick-001" in quick.said.stderr

    def test_its_text_is_as_likely_as_held_out_text(self, quick, texts):
        judge = CharacterModel(texts.training)
        held_out = judge.bits_per_character(texts.held_out)
        written = judge.bits_per_character(quick.sample)
        print(f"5-gram model, bits a character: held-out text {held_out:.3f}, the sample {written:.3f}")
        assert len(quick.sample) >= 2000
        assert written == pytest.approx(held_out, rel=0.15)

    def test_nothing_is_copied(self, quick, texts):
        assert longest_copied_span(quick.sample, texts.training, at_least=60) == ""

    def test_it_is_not_one_phrase_again_and_again(self, quick):
        words = re.findall(r"\w+", quick.sample.lower())
        assert len(set(words)) > 0.25 * len(words)

    def test_it_predicts_held_out_text(self, quick):
        scores = [fact["bits_per_byte"] for fact in quick.facts if fact["event"] == "evaluation"]
        print("bits/byte at each evaluation:", *(f"{score:.3f}" for score in scores))
        assert min(scores) < BITS_PER_BYTE

    def test_it_takes_less_than_8_gb(self, quick):
        (end,) = (fact for fact in quick.facts if fact["event"] == "end")
        print(f"{end['elapsed_seconds']:.0f} s, peak memory {end['peak_memory_bytes'] / 1e9:.2f} GB")
        assert end["peak_memory_bytes"] < 8e9
        assert end["step"] == run_preset("quick").train.steps


@pytest.mark.slow
@pytest.mark.timeout(10 * MINUTE)
def test_tinystories_22m_trains_in_less_than_8_gb(pellucid, workdir: Path):
    """A few steps of the whole batch, an evaluation and a save: what takes the most memory."""
    result = pellucid("train", "tinystories-22m", "train.steps=3", "train.eval_tokens=20000", "train.compile=false",
                      "train.sample_tokens=20", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    facts = [json.loads(line) for line in result.stdout.splitlines()]
    start, end = facts[0], facts[-1]
    losses = [fact["loss"] for fact in facts if fact["event"] == "step"]
    print(f"peak memory {end['peak_memory_bytes'] / 1e9:.2f} GB, losses {losses}")
    assert start["parameters"] > 22_000_000
    assert losses[0] == pytest.approx(math.log(21_504), abs=0.5)
    assert losses[-1] < losses[0]
    assert end["peak_memory_bytes"] < 8e9
