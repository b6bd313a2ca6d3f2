"""Frozen, validated values: what a study is. Import from the files; this package pulls in nothing by itself."""
