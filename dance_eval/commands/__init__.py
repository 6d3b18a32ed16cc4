"""What `evaluate.py` does, one command per file: its options, and the function that runs it."""
