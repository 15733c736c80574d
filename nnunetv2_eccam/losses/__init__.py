"""The loss of the paper (III.B, eq. 11-13, 17)."""
