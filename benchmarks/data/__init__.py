"""Data sets: frame tables and windows, Ego4D's layout, and SynthLAM. Nothing here imports torch."""
