"""Which nodes of an interpreter a delegate has taken over, as the interpreter itself shows it. Python 3.6.

A delegate's node comes after the nodes that it replaces, which stay in the list though they run no more. It has the tensors that go in and
out, so what it has taken is what lies between them.
"""

from typing import Any, Dict, List, Optional, Set  # noqa: F401

DELEGATE = "DELEGATE"
MAXIMUM_ROWS = 50


def nodes(interpreter):
    # type: (Any) -> Optional[List[Dict[str, Any]]]
    """All nodes of the first subgraph (``op_name``, ``inputs``, ``outputs``); None where this release does not show them."""
    show = getattr(interpreter, "_get_ops_details", None)
    try:
        return list(show()) if show is not None else None
    except Exception:  # no public interface: whatever it does in another release, it must not cost the measurement
        return None


def taken_by(delegate, all_nodes):
    # type: (Dict[str, Any], List[Dict[str, Any]]) -> Set[int]
    """The numbers of the nodes that one delegate's node stands for: from its outputs back to its inputs."""
    makers = {
        int(tensor): number for number, node in enumerate(all_nodes) if node["op_name"] != DELEGATE for tensor in node["outputs"]
    }
    given = {int(tensor) for tensor in delegate["inputs"]}
    found, waiting = set(), [int(tensor) for tensor in delegate["outputs"]]  # type: Set[int], List[int]
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker not in found:
            found.add(maker)
            waiting += [int(tensor) for tensor in all_nodes[maker]["inputs"] if int(tensor) not in given]
    return found


def delegated(all_nodes):
    # type: (List[Dict[str, Any]]) -> List[Set[int]]
    """For each delegate's node, the numbers of the nodes that it has taken."""
    return [taken_by(node, all_nodes) for node in all_nodes if node["op_name"] == DELEGATE]


def names(all_nodes, numbers):
    # type: (List[Dict[str, Any]], Set[int]) -> List[str]
    return [str(all_nodes[number]["op_name"]) for number in sorted(numbers)]


def by_operation(operations, reason):
    # type: (List[str], str) -> List[Dict[str, Any]]
    """Names of operations, counted, for one reason; the most frequent first."""
    counts = {}  # type: Dict[str, int]
    for operation in operations:
        counts[operation] = counts.get(operation, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAXIMUM_ROWS]
    return [{"operation": name, "count": count, "reason": reason} for name, count in ordered]


def xnnpack_coverage(interpreter, source):
    # type: (Any, str) -> Optional[Dict[str, Any]]
    """How many operations XNNPACK runs and how many the runtime's own kernels; None where the interpreter does not show it.

    TensorFlow's own interpreter has a delegate for operations of TensorFlow (``Flex...``) besides; what that takes is elsewhere.
    """
    all_nodes = nodes(interpreter)
    if all_nodes is None:
        return None
    parts = [part for part in delegated(all_nodes) if not any(name.startswith("Flex") for name in names(all_nodes, part))]
    taken = set().union(*parts)
    own = {number for number, node in enumerate(all_nodes) if node["op_name"] != DELEGATE}
    return {
        "accelerator": "xnnpack",
        "on_accelerator": len(taken),
        "elsewhere": len(own - taken),
        "parts": len(parts),
        "off_chip_bytes": None,
        "elsewhere_by_operation": by_operation(names(all_nodes, own - taken), "not taken by XNNPACK"),
        "native_segments": None,
        "source": source,
    }
