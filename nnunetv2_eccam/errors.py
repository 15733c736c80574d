"""The one exception that the commands turn into a single line and exit code 1."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong.

    The message says what is wrong, in which file or case, and what to do. Functions raise it as any
    other exception; the command line prints its message without a traceback.
    """
