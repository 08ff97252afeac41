"""Figures on labelled photographs of real faces, for `python -m tools.check_photos`."""
