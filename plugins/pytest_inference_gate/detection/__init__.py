"""Detectors: what a detection set holds, and how well boxes are found."""
