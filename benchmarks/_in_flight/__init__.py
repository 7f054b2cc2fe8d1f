"""The parts of the benchmark of waiting jobs; each measurement runs in a process of its own."""
