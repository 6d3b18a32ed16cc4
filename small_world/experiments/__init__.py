"""Experiments on the small world."""
