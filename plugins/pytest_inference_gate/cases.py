"""Cases: the rows of the result, one parametrized test id each."""

from __future__ import annotations

from dataclasses import dataclass

from .cards import ModelCard


@dataclass(frozen=True, repr=False)
class Case:
    """model x backend x precision x batch x threads (x variant)."""

    card: ModelCard
    backend: str
    precision: str
    batch: int = 1
    threads: int = 1
    variant: str | None = None

    @property
    def id(self) -> str:
        """The name by which baselines find the case: ``digits_cnn-tflite-int8-b1-t1``."""
        parts = [self.card.name, self.backend, self.precision, f"b{self.batch}", f"t{self.threads}"]
        if self.variant:
            parts.append(self.variant)
        return "-".join(parts)

    @property
    def model(self) -> str:
        return self.card.name

    def __repr__(self) -> str:
        return f"<Case {self.id}>"
