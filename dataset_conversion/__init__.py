"""Converters from the data sets as downloaded to nnU-Net's raw format.

One module per data set (:mod:`.msd`, :mod:`.kits19`, :mod:`.tcia_pancreas`) knows how its download is laid
out and turns one case into published files; :mod:`.engine` does what is common: names and ids, the split,
many cases at once, resuming, the report, and putting the finished data set in its place.
"""
