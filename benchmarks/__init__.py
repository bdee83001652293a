"""How long things take on this machine: `pytest benchmarks`, or `python -m benchmarks.ratios` for the table."""
