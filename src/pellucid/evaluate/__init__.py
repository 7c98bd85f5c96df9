"""How well a model predicts text: numbers that compare between tokenizers."""

from pellucid.evaluate.perplexity import Perplexity, evaluate_split, evaluate_text
from pellucid.evaluate.scoring import score_windows

__all__ = ["Perplexity", "evaluate_split", "evaluate_text", "score_windows"]
