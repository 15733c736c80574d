"""Reads the fields of a specification, and names each that is wrong: where it stands, what it is, what it may be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_eccam.errors import UserError


class Fields:
    """The fields of one part of a specification; each is asked for once, and what is left over is an error.

    Args:
        content: what was read.
        source: the file, or ``the options``.
        path: the part's name in it, for example ``run``; empty for the whole.

    Raises:
        UserError: the content is no mapping.
    """

    def __init__(self, content: Any, source: str, path: str = "") -> None:
        self._source, self._path = source, path
        self._known: list[str] = []
        if content is None:
            content = {}
        if not isinstance(content, Mapping):
            what = path or "the specification"
            raise UserError(f"{source}: {what} is {_shown(content)}; it must be a mapping of names to values")
        self._content = content

    def name(self, key: str) -> str:
        """Give a field's full name, for example ``run.jobs``."""
        return f"{self._path}.{key}" if self._path else str(key)

    def wrong(self, key: str, needed: str) -> UserError:
        """Make the error of a field that is not what it must be."""
        return UserError(f"{self._source}: {self.name(key)} is {_shown(self._content.get(key))}; it must be {needed}")

    def _value(self, key: str) -> Any:
        self._known.append(key)
        return self._content.get(key)

    def part(self, key: str) -> Fields:
        """Give a part's fields."""
        return Fields(self._value(key), self._source, self.name(key))

    def free(self, key: str) -> dict[str, Any]:
        """Give a mapping whose names are not checked here."""
        return {str(name): value for name, value in self.part(key)._content.items()}

    def has(self, key: str) -> bool:
        """Say whether a field is given."""
        self._known.append(key)
        return self._content.get(key) is not None

    def items(self, key: str, needed: str) -> list[Any]:
        """Give a list; a single value is a list of one.

        Args:
            key: the field.
            needed: what it must be, in words.

        Raises:
            UserError: it is missing or empty.
        """
        value = self._value(key)
        if isinstance(value, (str, int, Mapping)) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self.wrong(key, needed)
        return list(value)

    def text(self, key: str, default: str | None) -> str | None:
        """Give a text.

        Raises:
            UserError: it is something else, or empty.
        """
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "a text")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Give one of several words.

        Raises:
            UserError: it is none of them.
        """
        value = self._value(key)
        if value is None:
            return default
        if value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}")
        return str(value)

    def flag(self, key: str, default: bool) -> bool:
        """Give a yes or no.

        Raises:
            UserError: it is something else.
        """
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, default: int | None, least: int) -> int | None:
        """Give a whole number.

        Raises:
            UserError: it is something else, or less than ``least``.
        """
        value = self._value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"a whole number of {least} or more")
        return value

    def number(self, key: str, default: float | None, above: float, below: float = float("inf")) -> float | None:
        """Give a number between two others, neither of which it may be.

        Raises:
            UserError: it is something else, or outside.
        """
        value = self._value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < below:
            limit = "" if below == float("inf") else f" and below {below:g}"
            raise self.wrong(key, f"a number above {above:g}{limit}")
        return float(value)

    def finish(self) -> None:
        """Complain of names that nobody asked for.

        Raises:
            UserError: there are some.
        """
        for key in self._content:
            if key in self._known:
                continue
            near = difflib.get_close_matches(str(key), self._known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"{self._source}: {self.name(key)} is not known{hint}; "
                f"{self._path or 'a specification'} has {', '.join(self._known)}"
            )


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)
