"""Models from and to the formats of other projects. Their words, such as `hidden_size`, appear only here."""
