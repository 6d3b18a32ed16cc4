"""Noise levels, the flow objective, guidance and the sampler; networks are plain callables here."""
