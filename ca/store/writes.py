"""What every part of a write transaction may do with statements. Knows no table."""

from __future__ import annotations

from abc import abstractmethod

from ca.store.reads import Parameters, Reads, Statement


class Writes(Reads):
    """A write transaction can also ask, and sees what it wrote."""

    @abstractmethod
    def _change(self, statement: Statement, parameters: Parameters) -> int:
        """Run a statement that returns nothing; how many rows it changed."""
