"""The commands under faults: `python -m tests.faults` injects them at moments drawn from a seed, and compares bytes."""
