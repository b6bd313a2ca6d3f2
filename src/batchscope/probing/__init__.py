"""The whole probe: what fits on a device, and how long an update takes there at each batch size."""
