"""Converters from the data sets as downloaded to nnU-Net's raw format."""
