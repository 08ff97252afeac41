"""Speed benchmarks of frequent work against plain ways of doing it: `python -m tools.speed`."""
