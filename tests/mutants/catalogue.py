"""All mutants."""

from mutants import clients, durability, elections, membership, replication, seal, snapshots
from mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *durability.MUTANTS,
    *clients.MUTANTS,
    *membership.MUTANTS,
    *snapshots.MUTANTS,
    *seal.MUTANTS,
)
