"""The demonstration: a phantom in the layout of an MSD download, and the whole way through nnU-Net."""
