"""Parts of `benchmarks/webhooks.py`."""
