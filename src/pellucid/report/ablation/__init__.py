"""An ablation's directory → what it found, and a page of it. No torch."""
