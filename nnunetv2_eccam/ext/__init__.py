"""The folder that nnU-Net searches; see :mod:`nnunetv2_eccam.lookup`."""
