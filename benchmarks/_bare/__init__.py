"""A provider's side reduced to the least work that speaks HTTP, and the exchanges that are measured against it."""
