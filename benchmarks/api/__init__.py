"""The benchmark from Python; `benchmarks/__init__.py` offers its functions."""
