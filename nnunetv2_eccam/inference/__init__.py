"""Prediction of any nnU-Net model with several tiles and mirrored copies in one call of the network."""
