"""Priors: head poses and landmarks from estimators. The registry imports every module here."""
