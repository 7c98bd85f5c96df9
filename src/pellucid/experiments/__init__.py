"""Whole runs as values: experiments that start, stop and compare them."""
