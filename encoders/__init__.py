"""From a network to numbers: reading, the canonical graph, and the encoders that describe it."""
