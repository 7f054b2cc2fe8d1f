"""Trouble to order: what can go wrong, when, and how it meets a connection."""

__all__: list[str] = []
