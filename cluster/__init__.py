"""Floor 2, nodes that agree: consensus, seal, peer transport. `raft/` holds no key; `seal/` holds them."""
