"""What a study's name for its workload means, told without torch."""

from __future__ import annotations


def is_file(name: str) -> bool:
    """Whether a name means a user's file, not a built-in workload."""
    return ".py:" in name or name.endswith(".py")
