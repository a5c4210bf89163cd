"""The garbage collector of a server, whose pauses are everybody's."""

import gc

# Of objects that hold others, made and not yet freed. Python's own 700 are what a few hundred streams have in flight at
# any moment: it would look through all there is every few seconds, for a fifth of one with a thousand streams.
THRESHOLDS = (10_000, 10, 10)


def settle_collector() -> None:
    """Call it once, when everything is imported and built: what is there now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
