"""Heads: window of features -> looking or not looking. The registry imports every module here."""
