"""Errors that a user can act on.

Each message is one sentence that says what is wrong and what to do next; the plugin prints it without a traceback.
"""

from __future__ import annotations


class GateError(Exception):
    """Base of every error whose message is meant for the user."""


class CardError(GateError):
    """A model card that cannot be used: names the file, the key, what was found and what was expected."""


class FetchError(GateError):
    """A checkpoint or data set that could not be fetched, verified or unpacked."""


class EvaluationDataError(GateError):
    """An evaluation or calibration set that is missing, incomplete or does not fit its card."""


class StoreError(GateError):
    """A store of artifacts that cannot be read or written."""


class BaselineError(GateError):
    """A baseline that cannot be read, or that belongs to another device."""
