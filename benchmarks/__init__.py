"""Scripts that measure this package: run from the repository's folder, not installed."""
