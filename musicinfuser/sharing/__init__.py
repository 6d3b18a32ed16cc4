"""Trained adapters as others read them: a folder in the Hub's shape, and the authors' file."""
