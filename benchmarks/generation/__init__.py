"""The parts of `generate.py`: the model that all rows share, the rows, and how fast memory can be read."""
