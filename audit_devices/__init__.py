"""Floor 4: audit devices, one file each."""
