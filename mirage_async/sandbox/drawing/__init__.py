"""The pictures of the sandbox: ordered, drawn, kept, and looked at."""

__all__: list[str] = []
