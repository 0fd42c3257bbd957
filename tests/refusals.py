"""What an act is refused with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ca.errors import FleetcaError


def refused(code: str, act: Callable[[], object]) -> FleetcaError:
    """The error of that code: nothing else will do."""
    with pytest.raises(FleetcaError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


def code_of(act: Callable[[], object]) -> str:
    """The code of the refusal; empty where nothing was refused."""
    try:
        act()
    except FleetcaError as error:
        return error.code
    return ""
