"""The error of everything that a caller can mend."""

from __future__ import annotations


class InvalidError(ValueError):
    """A number, a shape or a map that breaks a rule: ``num_replicas 289 is not a multiple of num_gpus 32``.

    ``field``, ``value`` and ``rule`` are the parts of the message.
    """

    field: str
    value: str
    rule: str

    def __init__(self, field: str, value: object, rule: str) -> None:
        # The three are the arguments, so that the error can be pickled from a worker to its engine.
        super().__init__(field, str(value), rule)
        self.field = field
        self.value = str(value)
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field} {self.value} {self.rule}"
