"""Is it the same model on the other side? Both sides read the same text, and what they say is compared."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.sources.base import documents
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.errors import ParityError, TokenizerError
from pellucid.model import EncoderDecoderLM, Transformer
from pellucid.model.decoding import decode
from pellucid.runtime.extras import require
from pellucid.runtime.files import sha256_file, write_atomic
from pellucid.tokenizers import Tokenizer
from pellucid.train.check import Finding

FILE = "parity.json"
GREEDY_TOKENS = 24
LENGTH = 192
"""As many tokens as are read at once, at most."""
_PROMPT_TOKENS = 16

ADVERSARIAL = (
    "Hello, world! It's 3.14159, isn't it? They'LL've 12345 reasons.",
    "  two  spaces,\ttabs\t\tand\n\n\nnewlines \r\n at the end   ",
    "naïve café, ﬁligree, Ⅷ, ½, H₂O, ǅ, İstanbul, straße, ΣΊΣΥΦΟΣ",
    "日本語のテキスト、中文，한국어 텍스트 and العربية עברית हिन्दी ไทย",
    "🙂👩‍👩‍👧‍👦🇳🇴 e\u0301 \u200b\u200d\ufeff\u00a0\u3000|\u0000|\ufffd",
    "x" * 300 + " " * 90 + "=" * 70 + "1234567890" * 9,
    "def f(x):\n    return {'a': [x**2, ~x >> 3]}  # <|not special|> </s> [INST] <unk>",
)
"""Texts on which tokenizers differ where they differ at all."""


class Side(Protocol):
    """One program with the model in it."""

    name: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text, special tokens in it as such."""
        ...

    def logits(self, ids: Sequence[int], target: Sequence[int]) -> NDArray[np.float64]:
        """[T, V] of a decoder's `ids`; of an encoder-decoder's `target`, from the source `ids`."""
        ...

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The next ids, each the likeliest; an end of text is an id like others, and ends them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens by their names."""
        ...

    @property
    def end_of_text(self) -> int | None:
        """The id that ends a text."""
        ...


@dataclass(frozen=True)
class Tolerance:
    """How far the other side may be off."""

    logits: float
    """Largest difference, relative to the largest logit."""
    perplexity: float
    """Relative."""
    greedy: bool = True
    """Whether the greedy ids must be equal, but for two that are as likely as each other, to the tolerance."""


EXACT = Tolerance(logits=1e-4, perplexity=1e-4)


@dataclass(frozen=True)
class Receipt:
    """What came of a comparison, or why there was none."""

    other: str
    findings: tuple[Finding, ...] = ()
    not_compared: str | None = None
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    files: dict[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of each file that the other side read, by name."""

    def of(self, path: Path, *, name: str | None = None) -> Receipt:
        """The receipt with the digests of a model's file, under a name that it will have, or of its directory's."""
        return replace(self, files={name or file.name: sha256_file(file) for file in model_files(path)})

    def with_first(self, finding: Finding) -> Receipt:
        """With one more finding, at the head; a comparison that was not made stays none."""
        return replace(self, findings=(finding, *self.findings))

    @property
    def passed(self) -> bool:
        """Whether the other side was asked and nothing differed."""
        return self.not_compared is None and all(finding.passed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    def lines(self) -> list[str]:
        marks = {True: "same", False: "DIFFERS"}
        lines = [f"{marks[f.passed]:7}  {f.what}: {f.found}" for f in self.findings]
        return [*lines, f"not compared: {self.not_compared}"] if self.not_compared else lines

    def require(self) -> None:
        """Raise ParityError where something differs."""
        if faults := [f"{f.what}: {f.found}" for f in self.findings if not f.passed]:
            raise ParityError("\n  ".join([f"{self.other} does not read the same model:", *faults]))


def model_files(path: Path) -> list[Path]:
    """What of a model's directory decides what it computes; a file is that alone."""
    if path.is_file():
        return [path]
    files = (
        file for file in path.iterdir() if file.suffix in {".json", ".safetensors"} and file.name != FILE
    )
    return sorted(file for file in files if file.is_file())


@dataclass(frozen=True)
class _Questions:
    """What both sides are asked."""

    texts: Sequence[str]
    passage: list[int]
    target: list[int]
    """Of an encoder-decoder."""
    prompt: list[int]
    count: int
    """Of new ids; 0: the context has no room for one."""


@dataclass(frozen=True)
class _Answers:
    ids: Sequence[list[int]]
    end_of_text: int | None
    logits: NDArray[np.float64]
    greedy: list[int]


def compare(
    ours: Side, theirs: Side, tokenizer: Tokenizer, model: Transformer, tolerance: Tolerance
) -> Receipt:
    """Tokenizer, logits, perplexity and greedy ids of both sides, on texts that are part of this project.

    Raises ParityError where the other side cannot answer.
    """
    asked = _questions(tokenizer, model)
    here = _ask(ours, asked)
    with _faults_of(theirs):
        there = _ask(theirs, asked)
        decoded = [theirs.decode(ids) for ids in here.ids]
        largest_difference = float(np.abs(here.logits - there.logits).max())
    differing = [text for text, a, b in zip(asked.texts, here.ids, there.ids, strict=True) if a != b]
    others = [text for text, ids in zip(decoded, here.ids, strict=True) if text != ours.decode(ids)]
    largest = max(float(np.abs(here.logits).max()), 1e-12)
    differs = largest_difference / largest
    scored = asked.target or asked.passage
    numbers = {"logits": differs}
    findings = [
        Finding("tokenizer ids", _count(differing, asked.texts), not differing),
        Finding("decoded text", _count(others, asked.texts), not others),
        Finding(
            "end of text",
            f"{there.end_of_text} there, {here.end_of_text} here",
            here.end_of_text == there.end_of_text,
        ),
        Finding(
            "logits",
            f"differ by {differs:.2g} of the largest, {largest:.3g}, over {len(scored)} tokens; "
            f"{tolerance.logits:g} are allowed",
            differs <= tolerance.logits,
        ),
    ]
    if len(scored) > 1:
        of_ours, of_theirs = (_perplexity(answers.logits, scored) for answers in (here, there))
        numbers |= {"perplexity_here": of_ours, "perplexity_there": of_theirs}
        found = f"{of_theirs:.6g} there, {of_ours:.6g} here; {tolerance.perplexity:.2%} are allowed"
        findings.append(Finding("perplexity", found, abs(of_theirs / of_ours - 1) <= tolerance.perplexity))
    if asked.count:
        found, is_same = _compare_greedy(
            ours, asked, here.greedy, there.greedy, 2 * tolerance.logits * largest
        )
        findings.append(Finding("greedy ids", found, is_same or not tolerance.greedy))
    return Receipt(theirs.name, tuple(findings), numbers=numbers)


def _questions(tokenizer: Tokenizer, model: Transformer) -> _Questions:
    most = model.max_seq_len
    passage = _passage_ids(tokenizer)[: min(LENGTH, most)]
    start = [model.start_id] if isinstance(model, EncoderDecoderLM) else []
    prompt = passage[: max(1, min(_PROMPT_TOKENS, most // 2))]
    known = (_known_part(text, tokenizer) for text in ADVERSARIAL)
    return _Questions(
        texts=[*filter(None, known), "".join(tokenizer.special_tokens)],
        passage=passage,
        target=[*start, *passage[:_PROMPT_TOKENS]][:most] if start else [],
        prompt=prompt,
        count=min(GREEDY_TOKENS, most - len(prompt)),
    )


def _ask(side: Side, asked: _Questions) -> _Answers:
    return _Answers(
        ids=[side.encode(text) for text in asked.texts],
        end_of_text=side.end_of_text,
        logits=side.logits(asked.passage, asked.target),
        greedy=side.greedy(asked.prompt, asked.count) if asked.count else [],
    )


@contextmanager
def _faults_of(side: Side) -> Generator[None]:
    """Errors of any kind as a ParityError."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise ParityError(f"{side.name} cannot use the model: {type(error).__name__}: {words}") from error


def _count(differing: Sequence[str], texts: Sequence[str]) -> str:
    shown = f" (the first: {differing[0][:40]!r})" if differing else ""
    return f"{len(differing)} of {len(texts)} texts differ{shown}"


def _compare_greedy(
    ours: Side, asked: _Questions, here: list[int], there: list[int], tie: float
) -> tuple[str, bool]:
    """What is found, and whether the ids are the same but for two whose logits differ by no more than `tie`."""
    pairs = enumerate(zip(here, there, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), None)
    if same is None:
        return f"{len(there)} there, {len(here)} here, equal as far as they go", len(here) == len(there)
    if asked.target:
        last = ours.logits(asked.prompt, [*asked.target[:1], *here[:same]])[-1]
    else:
        last = ours.logits([*asked.prompt, *here[:same]], [])[-1]
    gap = float(last[here[same]] - last[there[same]])
    return (
        f"the first {same} of {len(here)} are equal; the next differ by {gap:.2g} in their logits",
        gap <= tie,
    )


def _passage_ids(tokenizer: Tokenizer) -> list[int]:
    """Of prose; of a tokenizer that knows hardly a character of it, its first ids."""
    (document,) = documents(BuiltinSource("shakespeare"), whole=True)
    ids: list[int] = tokenizer.encode(_known_part(document.text[:4000], tokenizer)).astype(int).tolist()
    return ids if len(ids) >= _PROMPT_TOKENS else [n % tokenizer.vocab_size for n in range(LENGTH)]


def _known_part(text: str, tokenizer: Tokenizer) -> str:
    """The text without the characters that the tokenizer refuses, as one of single characters does."""
    try:
        tokenizer.encode(text, allow_special=True)
    except TokenizerError:
        return "".join(character for character in text if _knows(character, tokenizer))
    return text


def _knows(character: str, tokenizer: Tokenizer) -> bool:
    try:
        tokenizer.encode(character)
    except TokenizerError:
        return False
    return True


def _perplexity(logits: NDArray[np.float64], ids: Sequence[int]) -> float:
    rows = logits[: len(ids) - 1]
    shifted = rows - rows.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    chosen = shifted[np.arange(len(rows)), np.asarray(ids[1:])]
    return float(np.exp((log_sum - chosen).mean()))


# The sides --------------------------------------------------------------------------------------------


class Here:
    """Our own model, in float32."""

    name = "pellucid"

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.float().eval(), tokenizer

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, allow_special=True).astype(int).tolist()

    @torch.no_grad()
    def logits(self, ids: Sequence[int], target: Sequence[int]) -> NDArray[np.float64]:
        source = torch.tensor([ids])
        if isinstance(self.model, EncoderDecoderLM):
            states = self.model.hidden(torch.tensor([target]), encoder_ids=source).states
            found = self.model.head(states)
        else:
            found = self.model(source)
        return found[0].double().numpy()

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        def likeliest(logits: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
            del before
            return logits.argmax(-1)

        end = self.tokenizer.end_of_text_id
        return [int(new) for new in decode(self.model, torch.tensor([ids]), count, likeliest, stop_id=end)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    @property
    def end_of_text(self) -> int | None:
        return self.tokenizer.end_of_text_id


class InTransformers:
    """A directory, loaded by transformers without remote code."""

    def __init__(self, directory: Path) -> None:
        transformers = require("transformers", extra="export", purpose="a receipt")
        self.name = f"transformers {transformers.__version__}"
        with _quiet(transformers), _faults_of(self):
            self._load(transformers, directory)

    @staticmethod
    def unusable() -> str | None:
        """Why the transformers that is installed here cannot be asked; None: it can."""
        try:
            version = require("transformers", extra="export", purpose="a receipt").__version__
        except ImportError as error:
            return f"transformers cannot be imported ({' '.join(str(error).split())[:200]})"
        numbers = tuple(int(part) for part in version.split(".")[:2])
        return None if numbers >= (5, 5) else f"transformers {version} is here, and 5.5 or newer is needed"

    def _load(self, transformers: Any, directory: Path) -> None:
        config = transformers.AutoConfig.from_pretrained(directory)
        self.is_encoder_decoder = bool(config.is_encoder_decoder)
        loader = (
            transformers.AutoModelForSeq2SeqLM
            if self.is_encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        self.model = loader.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        # Without the penalties and limits that the directory may ask for.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            num_beams=1,
            eos_token_id=self.end_of_text,
            pad_token_id=self.end_of_text,
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
        )

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @torch.no_grad()
    def logits(self, ids: Sequence[int], target: Sequence[int]) -> NDArray[np.float64]:
        more = {"decoder_input_ids": torch.tensor([target])} if target else {}
        return self.model(torch.tensor([ids]), **more).logits[0].double().numpy()

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        prompt = torch.tensor([ids])
        written = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count)[
            0
        ].tolist()
        return written[1:] if self.is_encoder_decoder else written[len(ids) :]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @property
    def end_of_text(self) -> int | None:
        return self.tokenizer.eos_token_id


@contextmanager
def _quiet(transformers: Any) -> Generator[None]:
    """Without its progress bars and warnings: what matters is in the receipt."""
    log = transformers.utils.logging
    before, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if had_bars:
            log.enable_progress_bar()
