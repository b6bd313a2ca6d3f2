"""Measurements of a model and a device that know nothing of studies."""
