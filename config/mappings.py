"""Mapping files: which of our requirements and which parts of an evidence pack answer a clause of a framework. Strictly typed.

Owns their form; knows neither the requirements nor the parts: a test holds both against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from config.strict import Form, Several, parse, read_octets


class Row(Form):
    """One clause."""

    id: str = Field(min_length=1, description="The clause, as the framework numbers it.")
    asks: str = Field(min_length=1, description="What it asks, in our own words.")
    requirements: Several[str] = Field(description="Our requirements that answer it.")
    parts: Several[str] = Field(description="The parts of an evidence pack that show it.")
    note: str = Field("", description="What of it is not ours, or stands elsewhere.")

    @model_validator(mode="after")
    def _answered(self) -> Row:
        if not self.requirements and not self.note:
            raise ValueError("has neither a requirement nor a note that says who answers it")
        return self


class Mapping(Form):
    """A framework."""

    title: str = Field(min_length=1, description="Its name.")
    edition: str = Field(min_length=1, description="Which edition the ids are those of.")
    rows: Several[Row] = Field(min_length=1, description="Its clauses.")

    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """What its file is called."""
        return self._name

    @model_validator(mode="after")
    def _once(self) -> Mapping:
        ids = [row.id for row in self.rows]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"rows has {twice[0]} twice")
        return self


def shipped() -> Path:
    """The folder of the mappings that come with fleetca."""
    return Path(str(files("config"))) / "mappings"


def read_mappings(folder: Path | None = None) -> Sequence[Mapping]:
    """The mappings of a folder, by name.

    Raises:
        ConfigurationError: one is wrong; names file and key.
    """
    found = []
    for file in sorted((folder or shipped()).glob("*.toml")):
        mapping = parse(Mapping, read_octets(file, kind="mapping"), file=file)
        mapping._name = file.stem  # noqa: SLF001 - set once before anyone sees the object
        found.append(mapping)
    return found
