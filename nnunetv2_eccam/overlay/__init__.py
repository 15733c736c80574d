"""Cases side by side: image, reference and each system's prediction over slices, as the paper's Fig. 4."""
