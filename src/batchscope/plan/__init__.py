"""What is run: points of the search space, step counts, and who is advanced how far."""
