"""The parts of EC-CaM-UNet, one module per part of the paper.

Every block is written once for any number of dimensions; the convolution operator decides.
"""
