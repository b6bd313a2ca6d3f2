"""Runs units somewhere and returns their results: in this process, or in worker processes."""
