"""Face detectors, one per module. The registry imports every module here."""
