"""The providers: what each of their documents says, as a server sees it."""

__all__: list[str] = []
