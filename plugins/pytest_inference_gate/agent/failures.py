"""What can go wrong in an agent, in the words of the protocol."""

import re
import traceback
from typing import Any, Dict, List  # noqa: F401

MAXIMUM_SENTENCE = 500

# What TensorFlow puts around the line that says what happened.
_SAYS_NOTHING = re.compile(r"Graph execution error:$|Detected at node .*|File \".*|<stack traces? unavailable>$")

# How TensorFlow begins what went wrong in a function that it was tracing.
_TRACED = "in user code:"

# How the stages fail where nothing more exact is known.
KIND_BY_VERB = {
    "probe": "run_error",
    "describe": "load_error",
    "convert": "build_error",
    "load": "load_error",
    "predict": "run_error",
    "measure": "run_error",
    "stream": "run_error",
}

# Words by which frameworks say that memory was not enough; the client searches logs for the same.
MEMORY_WORDS = (
    "MemoryError",
    "bad_alloc",
    "Cannot allocate memory",
    "OOM when allocating",
    "RESOURCE_EXHAUSTED",
    "ResourceExhausted",
    "OutOfMemory",
    "Cuda Runtime (out of memory)",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "_STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN
    "failed: out of memory",
)


class AgentError(Exception):
    """An error whose kind is known where it is raised; its message is one sentence for the user."""

    kind = "run_error"


class Unsupported(AgentError):
    """This backend or precision cannot exist in this environment."""

    kind = "unsupported"


class BuildError(AgentError):
    """The source cannot be converted."""

    kind = "build_error"


class LoadError(AgentError):
    """The runtime does not take the model, or does not come up itself."""

    kind = "load_error"


class TimedOut(AgentError):
    """A program that the agent started did not end in its time."""

    kind = "timeout"


class Crashed(AgentError):
    """A program that the agent started died of a signal."""

    kind = "crash"


class OutOfMemory(AgentError):
    """The framework says itself that the memory of the machine or of its accelerator was not enough."""

    kind = "oom"


def sentence_of(error):
    # type: (BaseException) -> str
    """One line that says what the framework said: the first lines of the message, without a stack dump."""
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    if told[:1] == [_TRACED]:  # then pairs of a place and its line of program text, until what was said
        places = [number for number, line in enumerate(told) if line.startswith('File "')]
        told = told[places[-1] + 2 :] if places else told[1:]
    lines = [line for line in told if not _SAYS_NOTHING.match(line)]
    if not lines:
        return type(error).__name__
    text = lines[0]
    for line in lines[1:]:  # "Exception encountered when calling Foo.call():" alone says nothing
        if not text.endswith(":") and len(text) >= 25:
            break
        text += " " + line
    if isinstance(error, (KeyError, ImportError, MemoryError)) or len(text) < 25:
        text = type(error).__name__ + ": " + text
    return text if len(text) <= MAXIMUM_SENTENCE else text[: MAXIMUM_SENTENCE - 1] + "…"


def speaks_of_memory(text):
    # type: (str) -> bool
    return any(word in text for word in MEMORY_WORDS)


def kind_of(error, verb):
    # type: (BaseException, str) -> str
    if isinstance(error, MemoryError) or speaks_of_memory(type(error).__name__) or speaks_of_memory(str(error)[:2000]):
        return "oom"
    if isinstance(error, AgentError):
        return error.kind
    return KIND_BY_VERB.get(verb, "run_error")


def describe(error, verb):
    # type: (BaseException, str) -> Dict[str, Any]
    """The ``error`` member of a reply."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))  # type: str
    return {
        "kind": kind_of(error, verb),
        "message": sentence_of(error),
        "type": type(error).__name__,
        "traceback": trace[-20000:],
    }
