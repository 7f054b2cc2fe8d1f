"""Who writes rows, for `journal.py`."""
