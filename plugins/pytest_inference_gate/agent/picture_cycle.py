"""The pictures that the rounds of a measurement go through in turn.

With a batch above 1, a picture is a batch of them. The next one is put in place by ``Runner.set_inputs`` and ``Runner.prepared``, which any
backend has; how it does that (a tensor set, a copy to the device, another feed) is not timed, and no more than one is held at a time, so
that a small board needs no more memory than for one picture.
"""

from typing import Any, Callable, List  # noqa: F401

from . import batches


class PictureCycle:
    """The first ``pictures`` pictures, or as many batches of ``size``, of the file ``path``.

    Raises :class:`~failures.AgentError` where the file has fewer.
    """

    def __init__(self, runner, path, size, pictures):
        # type: (Any, str, int, int) -> None
        self.pictures = pictures
        self._runner = runner
        self._batches = batches.Batches(path, size, pictures)

    def turn(self, number):
        # type: (int) -> Callable[[], Any]
        """Put the picture of round ``number`` in place; what one inference on it is."""
        self._runner.set_inputs(self._batches.take(number % self.pictures))
        return self._runner.prepared()  # type: ignore[no-any-return]

    def turn_on_device(self, number):
        # type: (int) -> Callable[[], float]
        """The same for a round by the device's own clock."""
        self._runner.set_inputs(self._batches.take(number % self.pictures))
        return self._runner.prepared_on_device()  # type: ignore[no-any-return]
