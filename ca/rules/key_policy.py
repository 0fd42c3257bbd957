"""Whether a store may hold a key: asked before anything is made or opened. Ring 1: pure."""

from __future__ import annotations

from ca.errors import Misconfigured, Unacceptable
from ca.model import AlgorithmName, Profile, StoreAbility


def check_algorithm(store: StoreAbility, algorithm: AlgorithmName) -> None:
    """Whether a store can make such a key.

    Raises:
        Unacceptable: it cannot (`store-lacks-algorithm`); the text says what it can.
    """
    if algorithm not in store.algorithms:
        raise Unacceptable(
            "store-lacks-algorithm",
            f"The key store {store.about} ({store.kind}) cannot make {algorithm} keys.",
            why=f"It offers {', '.join(sorted(store.algorithms)) or 'no kind of ours'}.",
            fix="Choose one of these, or another store.",
        )


def check_protection(store: StoreAbility, profile: Profile) -> None:
    """Whether a store keeps keys as well as a profile demands.

    Raises:
        Misconfigured: it is weaker (`store-too-weak`).
    """
    if store.protection < profile.minimum_protection:
        raise Misconfigured(
            "store-too-weak",
            f"The key store {store.about} ({store.kind}) keeps keys less well than profile {profile.name!r} demands.",
            why=f"The profile demands {profile.minimum_protection.name}, and the store gives {store.protection.name}.",
            fix="Choose a stronger store for this key, or another profile.",
        )


def check_store(store: StoreAbility, algorithm: AlgorithmName, profile: Profile) -> None:
    """Both, for a key that is about to be made.

    Raises:
        Unacceptable: `store-lacks-algorithm`.
        Misconfigured: `store-too-weak`.
    """
    check_protection(store, profile)
    check_algorithm(store, algorithm)
