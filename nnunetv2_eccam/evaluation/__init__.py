"""Predictions scored against references: overlap, surfaces, volumes; per case and per slice."""
