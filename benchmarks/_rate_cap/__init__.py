"""The parts of the benchmark of status calls under a limit."""
