"""Objective metrics: a function and a class per file."""
