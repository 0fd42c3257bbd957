"""When the service will not be there: `renewals.toml`, read again whenever it changes. Knows no PKI.

[[maintenance]]                     nobody is asked to come in this time
start = 2026-12-01T02:00:00Z
end = 2026-12-01T06:00:00Z
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field, model_validator

from config.strict import Form, Several, parse, read_octets


class Maintenance(Form):
    """A time in which the service is not there."""

    start: datetime = Field(description="When it begins.")
    end: datetime = Field(description="When it is over.")

    @model_validator(mode="after")
    def _forward(self) -> Maintenance:
        for value in (self.start, self.end):
            _zoned(value)
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self


class Renewals(Form):
    """The file."""

    maintenance: Several[Maintenance] = ()


def _zoned(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("has no time zone; write it like 2026-12-01T02:00:00Z")
    return value


def read_renewals(file: Path) -> Renewals:
    """Read the file; one that is not there lays nothing down.

    Raises:
        ConfigurationError: it is wrong; names the file and the key.
    """
    if not file.exists():
        return Renewals()
    return parse(Renewals, read_octets(file, kind="renewals file"), file=file)
