"""What to call the clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set


def list_of_names(names: Sequence[str]) -> list[str]:
    """Return names in the order of the clusters' numbers, as strings.

    Raises
    ------
    TypeError
        If they come in something else than a sequence, whose order says nothing.
    """
    if isinstance(names, Mapping | Set):
        raise TypeError(
            "names must be a sequence of str, one for each cluster in the order of their numbers; "
            f"got a {type(names).__name__}. Pass a list."
        )
    return [str(name) for name in names]
