"""The parts of the polling simulation; `benchmarks/polling.py` puts them together."""
