"""What can be known from one training: branches at larger batch sizes, and the steps of other batch sizes."""
