"""Where a detector suppresses: non-maximum suppression put on the processor or on the GPU, by the devices of nodes in its graph.

A variant of a case. What people did by hand is the function ``force_nms_cpu`` of NVIDIA's tf_trt_models: ``/device:CPU:0`` for every node
with ``NonMaxSuppression`` in its name. In graphs of the detection zoo that is more than the operation: all that lies in the scope
``BatchMultiClassNonMaxSuppression``, loops included. ``nms_cpu`` does the same, and finds operations with other names too.

``nms_gpu`` asks for the GPU for the operations alone, since some others in that scope have no kernel there. The figures that were published
as that are of a graph in which nothing was asked for.
"""

import os
from collections import namedtuple
from typing import Any, Dict, List, Optional  # noqa: F401

from . import graph_nodes
from .failures import BuildError, Unsupported

CPU, GPU = "nms_cpu", "nms_gpu"
VARIANTS = (CPU, GPU)
DEVICES = {
    CPU: "/device:CPU:0",
    # Named in full: converters of TF-TRT up to TensorFlow 1.15 abort on a device without a job, which is what the experiment found for the
    # processor, and must not happen where it did not.
    GPU: "/job:localhost/replica:0/task:0/device:GPU:0",
}
OPERATIONS = frozenset(
    ["NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5"]
    + ["NonMaxSuppressionWithOverlaps", "CombinedNonMaxSuppression"]
)
SCOPE = "NonMaxSuppression"
_SIMILAR = ("suppress", "nms", "postprocess", "post_process", "topk", "top_k")
_PLACES = {CPU: "the processor", GPU: "the GPU"}

# Names of the operations that suppress, and how many nodes were moved with them.
Placement = namedtuple("Placement", ["variant", "operations", "nodes"])


def place(graph_def, outputs, variant):
    # type: (Any, List[str], str) -> Placement
    """Set the devices in ``graph_def``, as far as the tensors ``outputs`` need it. Raises :class:`BuildError` where nothing suppresses."""
    nodes = list(graph_nodes.reached(graph_def, outputs))
    operations = [node for node in nodes if node.op in OPERATIONS]
    if not operations:
        raise BuildError(_without(nodes, variant))
    moved = [node for node in nodes if node.op in OPERATIONS or (variant == CPU and SCOPE in node.name)]
    for node in moved:
        node.device = DEVICES[variant]
    return Placement(variant, [(node.name, node.op) for node in operations], len(moved))


def _without(nodes, variant):
    # type: (List[Any], str) -> str
    similar = []  # type: List[str]
    for node in nodes:
        if any(word in (node.name.split("/")[-1] + node.op).lower().replace("/", "") for word in _SIMILAR):
            similar.append("%s (%s)" % (node.name, node.op))
    near = "; the nearest are %s" % ", ".join(similar[:3]) if similar else ""
    return "the card asks for the variant %s, and the graph has no NonMaxSuppression operation%s: take %s out of [variants]" % (
        variant,
        near,
        variant,
    )


def refuse_unknown(variant, device):
    # type: (Optional[str], str) -> None
    """``variant``: that of a request, or None. Raises :class:`Unsupported` for one that is not known, or that ``device`` cannot have."""
    if variant is None:
        return
    if variant not in VARIANTS:
        raise Unsupported("there is no variant %r of a graph; there are %s" % (variant, " and ".join(VARIANTS)))
    if variant == GPU and device != "cuda":
        raise Unsupported("the variant %s needs a CUDA device, and the case is for %s" % (variant, device))


def place_in_saved_model(directory, variant):
    # type: (str, str) -> Placement
    """The same in the SavedModel in ``directory``, which is written anew."""
    content = graph_nodes.read_saved_model(directory)
    placement = place(*graph_nodes.served(content), variant)
    with open(os.path.join(directory, graph_nodes.SAVED_MODEL), "wb") as stream:
        stream.write(content.SerializeToString())
    fingerprint = os.path.join(directory, "fingerprint.pb")
    if os.path.exists(fingerprint):  # of the graph as it was before
        os.remove(fingerprint)
    return placement


def details(placement):
    # type: (Placement) -> Dict[str, Any]
    """For the ``details`` of a conversion."""
    return {
        "variant": placement.variant,
        "device": DEVICES[placement.variant],
        "operations": [{"name": name, "operation": operation} for name, operation in placement.operations],
        "nodes": placement.nodes,
    }


def remarks(placement):
    # type: (Placement) -> List[str]
    """A sentence where the graph suppresses more than once, since the variant is then about all of them."""
    count = len(placement.operations)
    if count < 2:
        return []
    return ["the graph has %d NonMaxSuppression operations, and all of them were put on %s" % (count, _PLACES[placement.variant])]
