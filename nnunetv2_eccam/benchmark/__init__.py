"""Measurements against nnU-Net's own network: scripts that print a table, never tests."""
