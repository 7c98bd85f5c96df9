"""How well a model predicts text, and what it knows: numbers that compare between tokenizers, with intervals."""
