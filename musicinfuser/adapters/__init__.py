"""Trained adapters in every format: ours, the authors', and the folder that is shared."""
