"""Runs from elsewhere, and runs in other formats."""
