"""TensorFlow itself: the SavedModel is the artifact, and the float reference of everything else."""

import os
from typing import Any, Callable, Dict, List  # noqa: F401

from .. import model_outputs, nms_placement, tensorflow_device, tftrt_graph
from .. import tensorflow_sources as sources
from ..failures import LoadError, Unsupported

NAME = "tensorflow"
PRECISIONS = ("fp32",)
RUNNER_TAKES = ("device",)
VARIANTS = nms_placement.VARIANTS


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    version = sources.installed_version(packages)
    precisions = list(PRECISIONS) if version else []
    return {
        "available": bool(version),
        "can_convert": bool(version),
        "can_run": bool(version),
        "precisions_convert": precisions,
        "precisions_run": precisions,
        "runtime": {"name": "tensorflow", "version": version} if version else None,
        "converter": {"tensorflow": version} if version else {},
        "source_formats": list(sources.FORMATS) if version else [],
        "reason": "" if version else "TensorFlow is not installed",
    }


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    if request["precision"] not in PRECISIONS:
        raise Unsupported("the backend tensorflow has no precision %r; it has %s" % (request["precision"], ", ".join(PRECISIONS)))
    variant = request.get("variant")
    nms_placement.refuse_unknown(variant, request.get("device", "cpu"))
    directory = os.path.join(request["output_directory"], "saved_model")
    tf = sources.save(request, directory, progress)
    nodes = tftrt_graph.nodes_of(directory)
    details = {"nodes": {"before": nodes, "after": nodes, "converted": None}}  # type: Dict[str, Any]
    if variant is not None:
        placement = nms_placement.place_in_saved_model(directory, variant)
        details.update(nms=nms_placement.details(placement), remarks=nms_placement.remarks(placement))
    return {"model": "saved_model", "converter": sources.converter_versions(tf), "details": details}


def runtime():
    # type: () -> Dict[str, str]
    try:
        tf = sources.import_tensorflow()
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise Unsupported("TensorFlow is not installed here")
        raise
    return {"name": "tensorflow", "version": str(tf.__version__)}


class Runner:
    """A SavedModel's serving signature, on the CPU alone or on the first GPU."""

    def __init__(self, model, precision, threads, batch, input, device="cpu"):
        # type: (str, str, int, int, Dict[str, Any], str) -> None
        tf = sources.import_tensorflow()
        if device == "cuda":
            tensorflow_device.take_gpu(tf)
        elif device != "cpu":
            raise Unsupported("TensorFlow runs on the CPU or on a CUDA device, and not on %r" % device)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._model = tf.saved_model.load(model)  # keeps the variables alive
        if sources.SIGNATURE not in self._model.signatures:
            raise LoadError("the SavedModel has no signature %r" % sources.SIGNATURE)
        self._function = self._model.signatures[sources.SIGNATURE]
        ((self._input_name, specification),) = self._function.structured_input_signature[1].items()
        outputs = self._function.structured_outputs
        self._output_names = model_outputs.sorted_names(outputs)
        if list(specification.shape)[0] != batch:
            raise LoadError("the model was converted for a batch of %s, not %d" % (list(specification.shape)[0], batch))
        self._dtype = specification.dtype
        self.inputs = [model_outputs.described(self._input_name, specification)]
        self.outputs = [model_outputs.described(name, outputs[name]) for name in self._output_names]
        self._tensor = None  # type: Any
        self._results = []  # type: List[Any]

    def set_inputs(self, array):
        # type: (Any) -> None
        self._tensor = self._tf.constant(array, dtype=self._dtype)

    def prepared(self):
        # type: () -> Callable[[], Any]
        """The signature's call and its results fetched to the host, which waits for them."""
        return model_outputs.signature_call(self._function, self._output_names, {self._input_name: self._tensor})

    def infer(self):
        # type: () -> None
        self._results = model_outputs.as_list(self.prepared()())

    def get_output(self):
        # type: () -> Any
        return self.get_outputs()[0]

    def get_outputs(self):
        # type: () -> List[Any]
        return [result.astype("float32") for result in self._results]
