"""Where an engine of TensorRT was built: kept beside it, since it runs nowhere else, and TensorRT itself does not always say so."""

import json
from typing import Any, Dict  # noqa: F401

from .failures import LoadError

# What has to be equal where the engine is run, in the order in which a difference is told.
PINNED = ("tensorrt", "sm", "gpu", "board")
NAMES = {"tensorrt": "TensorRT", "sm": "SM", "gpu": "the GPU", "board": "the board"}


def read_origin(path, schema):
    # type: (str, str) -> Dict[str, Any]
    """The document at ``path`` that a build left there. Raises :class:`LoadError` where there is none of that schema."""
    try:
        with open(path, "rb") as stream:
            document = json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError("nothing says where the engine was built (%s): convert the case again" % error)
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise LoadError("%s is not of the schema %s: convert the case again" % (path, schema))
    return document


def refuse_foreign(origin, here):
    # type: (Dict[str, Any], Dict[str, str]) -> None
    """Raise :class:`LoadError` where the engine was built by another release, for another GPU, or on another board."""
    differences = [
        "%s was %s and is %s" % (NAMES[key], origin.get(key) or "unknown", here[key] or "unknown")
        for key in PINNED
        if origin.get(key) != here[key]
    ]
    if differences:
        raise LoadError(
            "the engine was built elsewhere (%s), and an engine runs only where it was built: convert the case again on this device"
            % "; ".join(differences)
        )
