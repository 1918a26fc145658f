"""Seal: Shamir shares, initialisation, unsealing and sealing. The keyed half of a node's core; see DESIGN.md."""
