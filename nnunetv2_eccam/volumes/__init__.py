"""The one reader of images and masks: every command of this package that opens a volume does so here.

:func:`read_image` and :func:`read_labels` read a file to its last byte and check it; :class:`Volume` is what they
give. :func:`list_volumes` lists a folder, :func:`present_file` says what is wrong with a path before it is opened.
"""

from nnunetv2_eccam.volumes.listing import ENDINGS, ending_of, hidden_line, list_volumes, present_file
from nnunetv2_eccam.volumes.reading import read_image, read_labels, read_volume
from nnunetv2_eccam.volumes.volume import Volume, check_same_grid

__all__ = [
    "ENDINGS",
    "Volume",
    "check_same_grid",
    "ending_of",
    "hidden_line",
    "list_volumes",
    "present_file",
    "read_image",
    "read_labels",
    "read_volume",
]
