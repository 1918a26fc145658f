"""Between nodes: one mTLS 1.3 port. ALPN tells Raft sessions from calls; a peer's identity is its certificate."""
