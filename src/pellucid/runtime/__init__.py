"""The machine: device, precision, processes, random draws, files. Knows nothing of language."""
