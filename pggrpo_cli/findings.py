"""What `pggrpo doctor` finds, a line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "trouble"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that was looked at. `advice`: what to do; empty if nothing is to be done."""

    name: str
    status: Status
    says: str
    advice: str = ""


def ok(name: str, says: str) -> Finding:
    return Finding(name=name, status="ok", says=says)


def warning(name: str, says: str, advice: str) -> Finding:
    return Finding(name=name, status="warning", says=says, advice=advice)


def trouble(name: str, says: str, advice: str = "") -> Finding:
    return Finding(name=name, status="trouble", says=says, advice=advice)
