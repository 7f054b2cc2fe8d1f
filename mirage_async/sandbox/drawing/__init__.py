"""The pictures of the sandbox: ordered, drawn, kept, and looked at."""
