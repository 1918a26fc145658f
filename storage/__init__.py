"""Floor 1, bytes at rest: stores, the AEAD envelope, the keyring, encrypted names, the barrier, transactions."""
