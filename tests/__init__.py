"""Tests; the reusable part is `tests.contracts`."""
