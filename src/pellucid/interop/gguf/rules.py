"""The rules by which text is cut before pairs of bytes are merged, by the names that llama.cpp has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from pellucid.errors import CheckpointError
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN, QWEN2_PATTERN

Tree = dict[str, Any]
_BYTE_LEVEL: Tree = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_NO_CUT: Tree = {**_BYTE_LEVEL, "use_regex": False}


def _split(pattern: str) -> Tree:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@dataclass(frozen=True)
class Rule:
    name: str
    """llama.cpp's, in `tokenizer.ggml.pre`."""
    steps: tuple[Tree, ...]
    """The pre-tokenizers of tokenizer.json, in order, as far as they change ids."""
    ignores_merges: bool = False
    """Whether a piece that is a token is taken whole, also where merges do not reach it."""

    @property
    def pre_tokenizer(self) -> Tree:
        """As tokenizer.json has it."""
        steps = [
            {**step, "trim_offsets": True} if step["type"] == "ByteLevel" else step for step in self.steps
        ]
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


RULES = (
    Rule("gpt-2", (_BYTE_LEVEL,)),
    Rule("llama-bpe", (_split(LLAMA3_PATTERN), _NO_CUT), ignores_merges=True),
    Rule("dbrx", (_split(LLAMA3_PATTERN), _NO_CUT)),
    Rule("qwen2", (_split(QWEN2_PATTERN), _NO_CUT)),
    Rule("smollm", ({"type": "Digits", "individual_digits": True}, _BYTE_LEVEL)),
)
"""Those whose ids were compared; of two that fit, the first is written. There is none for o200k_base: llama.cpp's
gpt-4o cuts before combining marks, such as Hindi has, where the tokenizer does not.
"""


def rule_of(
    pre_tokenizer: Any, tokens: Sequence[str], merges: Sequence[str], *, ignores_merges: bool
) -> Rule | None:
    """The rule of a tokenizer.json's pre-tokenizer; None where llama.cpp has no name for it."""
    tree = cast(Mapping[str, Any], pre_tokenizer or {})
    steps = tree["pretokenizers"] if tree.get("type") == "Sequence" else [tree]
    seen = tuple({key: value for key, value in step.items() if key != "trim_offsets"} for step in steps)
    for rule in RULES:
        if rule.steps == seen and (rule.ignores_merges == ignores_merges or merges_reach_all(tokens, merges)):
            return rule
    return None


def rule_named(name: str) -> Rule:
    """Raises CheckpointError for a name that is not known here."""
    for rule in RULES:
        if rule.name == name:
            return rule
    known = ", ".join(rule.name for rule in RULES)
    raise CheckpointError(f"tokenizer.ggml.pre: {name!r} is no rule that is known here (these are: {known})")


def merges_reach_all(tokens: Sequence[str], merges: Sequence[str]) -> bool:
    """Whether each token, standing alone, is made of its bytes by the merges: then it is no matter if they are
    ignored for a piece that is a token.
    """
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    return all(_merged(token, ranks) == [token] for token in tokens)


def _merged(token: str, ranks: Mapping[tuple[str, ...], int]) -> list[str]:
    parts = list(token)
    while len(parts) > 1:
        known = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not known:
            break
        at = min(known)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
