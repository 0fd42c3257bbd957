"""What every part of a write transaction may do with statements. Knows no table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from ca.store.reads import Parameters, Reads, Statement


class Writes(Reads):
    """A write transaction can also ask, and sees what it wrote."""

    @abstractmethod
    def _change(self, statement: Statement, parameters: Parameters) -> int:
        """Run a statement that returns nothing; how many rows it changed."""

    @abstractmethod
    def _change_each(self, statement: Statement, parameters: Sequence[Parameters]) -> int:
        """Run it once for each of the parameters; how many rows were changed in all."""
