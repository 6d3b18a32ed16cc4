"""Metrics that only the small world allows: joints and attributes read back from pixels."""
