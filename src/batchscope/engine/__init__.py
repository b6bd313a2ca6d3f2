"""Trains packs of trials: pure functions from a state and a step to the next state and its measurements."""
