"""What ``[state]`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path

    #: What ``Gate.state_settings`` gives.
    StateFields = tuple[
        tuple[str, str | None, Path | None, Path | None],
        tuple[Path | None, Path | None],
        tuple[str, float, int],
        tuple[str, str],
    ]

__all__ = ["StateSettings"]


class StateSettings(NamedTuple):
    """``[state]``, and what ``[limits]`` says of it. The core makes these."""

    url: str
    user: str | None
    password_file: Path | None
    ca_file: Path | None
    client_certificate: Path | None
    client_key: Path | None
    prefix: str
    #: Seconds.
    budget: float
    processes: int
    #: ``"local"``, ``"exact"`` or ``"leased"``.
    mode: str
    #: ``"local"`` or ``"refuse"``.
    degrade: str

    @classmethod
    def of(cls, found: StateFields) -> Self:
        """Of what the gate gives."""
        place, (certificate, key), (prefix, budget, processes), (mode, degrade) = found
        return cls(*place, certificate, key, prefix, budget, processes, mode, degrade)
