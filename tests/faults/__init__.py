"""Fault injection into the commands: `python -m tests.faults`."""
