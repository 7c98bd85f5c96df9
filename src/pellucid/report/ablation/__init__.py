"""What an ablation found, read from its directories alone: comparisons, pictures, one page."""
