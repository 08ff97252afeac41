"""The first ten minutes on a machine with a new kind of GPU."""
