"""From steps to result and time per step to a decision: which batch size, on how many devices, at what setting."""
