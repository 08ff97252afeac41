"""Figures on labelled faces of people, for `python -m tools.check_photos` and `python -m tools.check_people`."""
