"""Floor 0, the wire: `v1/*.proto` with their generated stubs, and the one error table. Imports nothing of the house."""
