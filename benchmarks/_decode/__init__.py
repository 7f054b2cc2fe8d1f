"""The parts of `benchmarks/decode.py`."""
