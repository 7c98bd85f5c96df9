"""Run presets: a model, data and a recipe under one name."""
