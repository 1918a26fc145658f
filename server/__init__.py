"""Floor 5: front ends, configuration and the composition root of a node."""
