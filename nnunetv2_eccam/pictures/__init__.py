"""Pictures for a paper: each system's result over the image (overlay), and what the network attends to."""
