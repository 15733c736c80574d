"""What the commands turn into a single line and exit code 1: the user's errors, and the system's."""


class UserError(ValueError):
    """Something that the user gave is wrong.

    The message says what is wrong, in which file or case, and what to do. Functions raise it as any
    other exception; the command line prints its message without a traceback.
    """


def words_of(error: UserError | OSError) -> str:
    """Say in one line what is wrong: of the system's errors the file and the reason, without a number."""
    if isinstance(error, OSError) and error.strerror:
        reason = "a file is there; give a folder" if isinstance(error, FileExistsError) else error.strerror
        return f"{error.filename}: {reason}" if error.filename else reason
    return str(error)
