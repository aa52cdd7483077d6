"""What all tests share."""

from stores import store

__all__ = ["store"]
