"""What a part of a model computes on the stand-in of an Edge TPU: its own operators, in a second interpreter of the same runtime."""

import ctypes
import sys

_RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter")
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_ADDRESSES, _SIZES = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t)
_RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _ADDRESSES, _SIZES, ctypes.c_int, _ADDRESSES, _SIZES, ctypes.c_int)

_parts = []


class _Simulation(ctypes.Structure):
    _fields_ = (("open", _OPEN), ("run", _RUN))


def attach(address):
    """Give the library at hand the two functions; ``address`` is that of its table."""
    table = _Simulation.from_address(address)
    table.open, table.run = _functions


def _open(content, size):
    try:
        (module,) = (sys.modules[name] for name in _RUNTIMES if name in sys.modules)
        interpreter = module.Interpreter(model_content=ctypes.string_at(content, size), num_threads=1)
        interpreter.allocate_tensors()
    except Exception as error:
        sys.stderr.write("the stand-in of the Edge TPU cannot take a part: %r\n" % (error,))
        return -1
    _parts.append(interpreter)
    return len(_parts) - 1


def _run(chip, inputs, input_sizes, input_count, outputs, output_sizes, output_count):
    try:
        interpreter = _parts[chip]
        described = interpreter.get_input_details()
        if len(described) != input_count or len(interpreter.get_output_details()) != output_count:
            return 1
        for details, address, size in zip(described, inputs, input_sizes):
            import numpy

            content = ctypes.string_at(address, size)
            interpreter.set_tensor(details["index"], numpy.frombuffer(content, details["dtype"]).reshape(details["shape"]))
        interpreter.invoke()
        for details, address, size in zip(interpreter.get_output_details(), outputs, output_sizes):
            content = interpreter.get_tensor(details["index"]).tobytes()
            if len(content) != size:
                return 1
            ctypes.memmove(address, content, size)
    except Exception as error:
        sys.stderr.write("the stand-in of the Edge TPU cannot run a part: %r\n" % (error,))
        return 1
    return 0


_functions = (_OPEN(_open), _RUN(_run))  # kept alive as long as the library may call them
