"""The control routes: everything a `Sandbox` does for its owner, over HTTP and from any language."""

__all__: list[str] = []
