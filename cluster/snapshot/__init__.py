"""The operator's snapshots: the state as a file, and a file as the state. What is in DESIGN.md stays there."""
