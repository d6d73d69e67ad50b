"""A stand-in for ``edgetpu_compiler``: its options, its words of each release, and models in which one custom operator takes the place of
all that it maps. What goes into that operator is the part of the model itself, which the stand-in of the library runs.

``DOUBLE_EDGETPU_VERSION`` is its release, ``DOUBLE_EDGETPU_COMPILER`` what goes wrong, ``DOUBLE_EDGETPU_UNMAPPED`` which operators it does
not map (``SOFTMAX=Operation not supported;...``), ``DOUBLE_EDGETPU_CAPACITY`` the bytes of the memory on the chip.
"""

import argparse
import copy
import os
import signal
import struct
import sys
import time
from pathlib import Path

VERSION = os.environ.get("DOUBLE_EDGETPU_VERSION", "16.0.384591198")
FAULT = os.environ.get("DOUBLE_EDGETPU_COMPILER", "")
CAPACITY = int(os.environ.get("DOUBLE_EDGETPU_CAPACITY", str(8037335)))
MAJOR = int(VERSION.split(".")[0])
RUNTIMES = {16: 14, 15: 13, 14: 13, 2: 12}
FIRST_RUNTIME_WITH_SIGNED_INTEGERS = 12

MAPPED = "Mapped to Edge TPU"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
DATA_TYPE = "Operation is working on an unsupported data type"
SECOND = "More than one subgraph is not supported"


def say(text=""):
    print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="edgetpu_compiler")
    parser.add_argument("-v", "--version", action="store_true")
    parser.add_argument("-s", "--show_operations", action="store_true")
    parser.add_argument("-o", "--out_dir", default=".")
    parser.add_argument("-m", "--min_runtime_version", type=int)
    if MAJOR >= 16:
        parser.add_argument("-t", "--timeout_sec", type=int, default=180)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    say(f"Edge TPU Compiler version {VERSION}")
    if options.version:
        return 0
    if MAJOR >= 16:
        say(f"Started a compilation timeout timer of {options.timeout_sec} seconds.")
    go_wrong(options)
    say()
    began = time.monotonic()
    try:
        compiled = [Part(path, options) for path in options.models]
    except Refused as refusal:
        say(str(refusal))
        return failed()
    plural = "s" if len(compiled) > 1 else ""
    say(f"Model{plural} compiled successfully in {(time.monotonic() - began) * 1000:.0f} ms.")
    for part in compiled:
        part.write(options)
    if MAJOR >= 16:
        say("Compilation child process completed within timeout period.")
        say("Compilation succeeded! ")
    return 0


def failed():
    if MAJOR >= 16:
        say("Compilation child process completed within timeout period.")
        say("Compilation failed! ")
    return 1


def go_wrong(options):
    if FAULT == "internal-once":
        state = Path(os.environ["DOUBLE_EDGETPU_STATE"])
        if not state.exists():
            state.touch()
            sys.exit(internal_error())
    elif FAULT == "internal":
        sys.exit(internal_error())
    elif FAULT == "timeout":
        say("Compilation timeout. This is usually caused by large activations.")
        say("Compilation failed! ")
        sys.exit(1)
    elif FAULT == "hangs":
        time.sleep(600)
    elif FAULT in ("SIGSEGV", "SIGKILL"):
        os.kill(os.getpid(), getattr(signal, FAULT))
    elif FAULT == "exception":
        say("libc++abi: terminating with uncaught exception of type std::out_of_range: vector")
        sys.exit(failed())
    elif FAULT == "large-activations":
        say("ERROR: Restored original execution plan after delegate application failure.")
        say("Compilation failed: Compilation failed due to large activation tensors in model.")
        sys.exit(failed())
    elif FAULT == "too-new":
        say(
            "ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'. An older version of this builtin might be supported. Are you"
        )
        say("ERROR: Registration failed.\n")
        say(f"Invalid model: {options.models[0]}\nModel could not be parsed")
        sys.exit(1)
    elif FAULT == "silent":
        sys.exit(failed())


def internal_error():
    say("\nInternal compiler error. Aborting! ")
    return failed() if MAJOR >= 16 else 1


class Refused(Exception):
    """The words with which a model is refused."""


class Part:
    """One model, and what of it is mapped."""

    def __init__(self, path, options):
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.path = schema, Path(path)
        self.content = self.path.read_bytes()
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(self.content, 0))
        self.graph = self.model.subgraphs[0]
        self.runtime = options.min_runtime_version or RUNTIMES[MAJOR]
        if any(-1 in tensor.shapeSignature for tensor in self.graph.tensors if tensor.shapeSignature is not None):
            raise Refused(
                "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized "
                "tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite "
                "interpreter."
            )
        self.names = [self._name(operator) for operator in self.graph.operators]
        self.statuses = self._statuses()

    def _name(self, operator):
        code = self.model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return next(name for name, value in vars(self.schema.BuiltinOperator).items() if value == number)

    def _type(self, tensor):
        return self.graph.tensors[tensor].type

    def _statuses(self):
        """The status of each operator: those from the first that can be mapped to the next that cannot are."""
        schema = self.schema
        unmapped = dict(item.split("=") for item in os.environ.get("DOUBLE_EDGETPU_UNMAPPED", "").split(";") if item)
        found, begun, ended = [], False, False
        for name, operator in zip(self.names, self.graph.operators):
            floats = [self._type(tensor) == schema.TensorType.FLOAT32 for tensor in (operator.inputs[0], operator.outputs[0])]
            if any(floats) and name not in ("QUANTIZE", "DEQUANTIZE"):
                raise Refused(f"Invalid model: {self.path}\nModel not quantized")
            status = unmapped.get(name) or (UNSPECIFIED if floats[0] else DATA_TYPE if floats[1] else MAPPED)
            if self.runtime < FIRST_RUNTIME_WITH_SIGNED_INTEGERS:
                status = DATA_TYPE
            begun = begun or status == MAPPED
            ended = ended or (begun and status != MAPPED)
            found.append(SECOND if ended and status == MAPPED else status)
        return found

    def write(self, options):
        stem = Path(options.out_dir) / f"{self.path.stem}_edgetpu"
        mapped = self.statuses.count(MAPPED)
        content, parameters = self._compiled() if mapped else (self.content, 0)
        left = max(0, CAPACITY - parameters) if mapped else 0
        remaining = "remaining" if MAJOR >= 14 else "available"
        say(f"\nInput model: {self.path}\nInput size: {size(len(self.content))}")
        say(f"Output model: {stem}.tflite\nOutput size: {size(len(content))}")
        say(f"On-chip memory used for caching model parameters: {size(min(parameters, CAPACITY))}")
        say(f"On-chip memory {remaining} for caching model parameters: {size(left)}")
        say(f"Off-chip memory used for streaming uncached model parameters: {size(max(0, parameters - CAPACITY))}")
        say(f"Number of Edge TPU subgraphs: {int(mapped > 0)}\nTotal number of operations: {len(self.statuses)}")
        say(f"Operation log: {stem}.log")
        if mapped < len(self.statuses):
            say(
                "\nModel successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will "
                "instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported "
                "by the Edge TPU. For details, visit g.co/coral/model-reqs."
            )
            say(f"Number of operations that will run on Edge TPU: {mapped}")
            say(f"Number of operations that will run on CPU: {len(self.statuses) - mapped}")
        say("\n" + self._table() if options.show_operations else "See the operation log file for individual operation details.")
        if FAULT != "no-output":
            Path(f"{stem}.tflite").write_bytes(content)
        head = f"Edge TPU Compiler version {VERSION}\nInput: {self.path}\nOutput: {stem}.tflite\n\n"
        Path(f"{stem}.log").write_text(head + self._table())

    def _table(self):
        rows = {}
        for row in zip(self.names, self.statuses):
            rows[row] = rows.get(row, 0) + 1
        lines = [f"{name:<31}{count:<11}{status}" for (name, status), count in rows.items()]
        return "\n".join([f"{'Operator':<31}{'Count':<11}Status", "", *lines, ""])

    def _compiled(self):
        """The model with one custom operator in the place of what is mapped, and the bytes of the parameters that go with it."""
        schema, graph = self.schema, self.graph
        inside = [operator for operator, status in zip(graph.operators, self.statuses) if status == MAPPED]
        outside = [operator for operator, status in zip(graph.operators, self.statuses) if status != MAPPED]
        made = {int(tensor) for operator in inside for tensor in operator.outputs}
        wanted = {int(tensor) for operator in outside for tensor in operator.inputs} | {int(tensor) for tensor in graph.outputs}
        used = list(dict.fromkeys(int(tensor) for operator in inside for tensor in operator.inputs if tensor >= 0))
        constant = [tensor for tensor in used if self._bytes(tensor)]
        inputs = [tensor for tensor in used if tensor not in made and tensor not in constant]
        outputs = sorted(made & wanted)
        part = copy.deepcopy(self.model)
        part.subgraphs[0].operators, part.subgraphs[0].inputs, part.subgraphs[0].outputs = inside, inputs, outputs
        part.signatureDefs = None
        submodel = self._pack(part)
        code = schema.OperatorCodeT()
        code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = "edgetpu-custom-op", 1
        self.model.operatorCodes.append(code)
        custom = schema.OperatorT()
        custom.opcodeIndex, custom.inputs, custom.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        custom.customOptions = list(struct.pack("<8sII", b"STAND-IN", self.runtime, len(submodel)) + submodel)
        place = self.statuses.index(MAPPED)
        graph.operators = [
            *graph.operators[:place],
            custom,
            *[operator for operator in graph.operators[place:] if operator in outside],
        ]
        parameters = sum(self._bytes(tensor) for tensor in constant)
        for tensor in set(constant) - wanted:
            self.model.buffers[graph.tensors[tensor].buffer].data = None
        return self._pack(self.model), parameters

    def _bytes(self, tensor):
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return 0 if data is None else len(data)

    @staticmethod
    def _pack(model):
        import flatbuffers

        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def size(count):
    for unit, amount in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= amount:
            return f"{count / amount:.2f}{unit}"
    return f"{count:.2f}B"


if __name__ == "__main__":
    sys.exit(main())
