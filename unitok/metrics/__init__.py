"""Metrics: statistics as thin torchmetrics classes."""
