"""What a trained network attends to in a case: maps on the image's own voxels, tables, and pictures as Fig. 6."""
