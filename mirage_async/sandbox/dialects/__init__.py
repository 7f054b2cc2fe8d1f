"""The providers: what each of their documents says, as a server sees it."""
