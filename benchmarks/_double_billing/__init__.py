"""Parts of `benchmarks/double_billing.py`."""
