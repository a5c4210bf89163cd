"""Which runner has worked on which image lately, and so may still have its encoding."""

from collections import OrderedDict
from collections.abc import Iterable

# An engine's cache of encoded images holds far fewer; beyond it a preference costs nothing and gains nothing.
MAX_IMAGES_PER_RUNNER = 1024


class Affinity:
    def __init__(self) -> None:
        self._images: dict[str, OrderedDict[str, None]] = {}

    def note(self, runner_id: str, image_ids: Iterable[str]) -> None:
        """This runner is about to work on these."""
        known = self._images.setdefault(runner_id, OrderedDict())
        for image_id in image_ids:
            known[image_id] = None
            known.move_to_end(image_id)
        while len(known) > MAX_IMAGES_PER_RUNNER:
            known.popitem(last=False)

    def knows_any(self, runner_id: str, image_ids: Iterable[str]) -> bool:
        known = self._images.get(runner_id, ())
        return any(image_id in known for image_id in image_ids)

    def forget_runner(self, runner_id: str) -> None:
        self._images.pop(runner_id, None)
