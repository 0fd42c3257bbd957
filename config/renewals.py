"""What operators lay down about the fleet's renewals: `renewals.toml`, read again whenever it changes. Knows no PKI.

[[maintenance]]                     nobody is asked to come in this time
start = 2026-12-01T02:00:00Z
end = 2026-12-01T06:00:00Z

[[replace]]                         certificates of before `since` go, all of them within this time; "0s" is now
since = 2026-12-03T09:00:00Z
within = "12h"
issuer = "issuing"                  only its certificates
profile = "device"                  only those of this profile
reason = "a key was lost"           agents show it
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from config.settings import ShortName
from config.strict import Duration, Form, Several, parse, read_octets


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


class Replace(Form):
    """Certificates that must be replaced before their time."""

    since: datetime = Field(description="Those that were issued before this.")
    within: Duration = Field(0, description="In how much time all of them shall have come.")
    issuer: ShortName | None = Field(None, description="Only certificates of this issuer.")
    profile: ShortName | None = Field(None, description="Only certificates of this profile.")
    reason: str = Field("", max_length=200, description="For people.")

    @field_validator("since")
    @classmethod
    def _when(cls, value: datetime) -> datetime:
        return _zoned(value)


class Renewals(Form):
    """The file."""

    maintenance: Several[Maintenance] = ()
    replace: Several[Replace] = ()


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
