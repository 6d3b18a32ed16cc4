"""Objective metrics: a functional form and a torchmetrics.Metric per file."""
