"""What evaluate.py asks, and of which model."""
