"""Every system that the paper compares, in one table that drives trainers, tests, docs and benchmark.

Light to import: networks are named by their dotted path and imported when they are built.
"""

from nnunetv2_eccam.systems.table import EC_CAM_UNET, RECIPES, SYSTEMS, PaperRow, System

__all__ = ["EC_CAM_UNET", "RECIPES", "SYSTEMS", "PaperRow", "System"]
