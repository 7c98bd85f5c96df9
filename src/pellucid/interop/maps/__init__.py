"""One file a model family: its name table, and its configs and weights in both directions. Reads no files."""
