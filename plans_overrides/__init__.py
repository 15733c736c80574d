"""The shipped plans overrides: JSON files, one per use, read by :mod:`nnunetv2_eccam.plans`."""
