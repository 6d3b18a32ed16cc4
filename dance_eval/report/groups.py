"""Which clips stand beside each other: those of one cell, made by several systems."""

from dance_eval.metrics.matching import CellGroup, cell_groups

__all__ = ["CellGroup", "cell_groups"]
