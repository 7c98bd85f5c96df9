"""How well a model predicts text and does tasks: numbers that compare between tokenizers.

No names are here: half of the modules read and compare what was measured, in processes that have no torch.
"""
