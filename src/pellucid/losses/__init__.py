"""What is minimised: used by training and by scoring alike. Sums and weights, never means."""

from pellucid.losses.linear_cross_entropy import LinearCrossEntropy, LossSums, token_choices, token_losses

__all__ = ["LinearCrossEntropy", "LossSums", "token_choices", "token_losses"]
