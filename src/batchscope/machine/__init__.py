"""This machine: its memory, its cores and its devices, each read in one place."""
