"""Plans overrides: what they may say, how they are checked, and how they enter nnU-Net's plans."""
