"""A base for the small values of this program.

Not dataclasses, on purpose: they load `inspect` (+2 MiB, +10 ms measured), and this program must be
ready within 150 ms and below 20 MiB.
"""

from __future__ import annotations


class Value:
    """Equality, hash and repr by the fields named in `__slots__`."""

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._fields() == self._fields()

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}={value!r}" for name, value in zip(self.__slots__, self._fields(), strict=True)
        )
        return f"{type(self).__name__}({inside})"
