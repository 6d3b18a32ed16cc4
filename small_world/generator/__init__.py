"""A seeded world of synthetic dancers and music, written as real video files with known beats.

It stands in for AIST and for collected videos where those may not be shipped.
"""

from small_world.generator.corpus import make_small_world, read_recipe
from small_world.generator.recipe import SmallWorldRecipe

__all__ = ["SmallWorldRecipe", "make_small_world", "read_recipe"]
