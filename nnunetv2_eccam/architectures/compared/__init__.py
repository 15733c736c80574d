"""The networks that the paper compares with or discusses, one module per network, each from its own paper."""
