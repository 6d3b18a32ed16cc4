"""Measurements: speed, memory, and what the small world shows."""
