"""A cross-validation of systems: its specification, its jobs on Snakemake, and what is recorded of each."""
