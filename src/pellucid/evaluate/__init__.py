"""How well a model predicts text, and what it knows: numbers that compare between tokenizers, with intervals.

No names are here: half of the modules read and compare what was measured, in processes that have no torch.
"""
