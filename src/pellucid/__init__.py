"""Pellucid: small transformer language models, from raw text to a measured model."""
