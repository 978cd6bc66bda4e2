"""Detectors trained on strong labels: which class sounds from when to when."""
