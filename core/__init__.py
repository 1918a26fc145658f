"""Floor 3, what a request goes through: gate, token, policy, audit, router, engine, transaction, proposal."""
