"""The command line: one verb per file, each a few lines over the public API."""
