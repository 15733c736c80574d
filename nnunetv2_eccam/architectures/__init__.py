"""Networks: how the blocks are wired, and how nnU-Net's plans become constructor arguments."""
