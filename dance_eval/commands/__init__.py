"""What `evaluate.py` does, one verb per file: its options, and the function that runs it."""
