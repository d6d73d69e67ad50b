"""What a TensorFlow Lite file holds, read without TensorFlow: its operators, and the types of its inputs and outputs. Python 3.6.

A board that runs models may have no reader of the format. The format is FlatBuffers: tables point to their fields by relative offsets, so
every position is checked before it is read.
"""

import struct
from collections import namedtuple
from typing import Any, Dict, Iterator, List, Optional, Tuple  # noqa: F401

IDENTIFIER = b"TFL3"
EDGE_TPU_OPERATOR = "edgetpu-custom-op"
"""The custom operator in whose place the compiler puts what it has mapped to the Edge TPU."""

CUSTOM = 32
_OLD_CODE_IS_FULL = 127  # beyond it, the number stands in a second field

# Their numbers are their places; what a newer release adds is called by its number.
BUILTIN_OPERATORS = tuple(
    """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED
HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU
RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM
EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV
SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE
BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE
SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT
REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE
ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND
HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS
RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC
STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE
STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH
STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD
STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
""".split()
)

TENSOR_TYPES = ("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64")

Operator = namedtuple("Operator", ["name", "version", "custom"])
Tensor = namedtuple("Tensor", ["name", "dtype", "shape"])


class NotTfLiteError(ValueError):
    """The bytes are no TensorFlow Lite file, or one that was cut or damaged."""


class TfLiteFile(namedtuple("TfLiteFile", ["description", "operators", "inputs", "outputs", "signature_outputs"])):
    """``operators`` of all subgraphs, in the file's order; ``inputs`` and ``outputs`` of the first subgraph; ``signature_outputs``: the
    name of each output in the first subgraph's signature and the number of its tensor; none where the file has no signature."""

    @property
    def counts(self):
        # type: () -> Dict[str, int]
        """How often each operator occurs; a custom one as ``CUSTOM:its-name``."""
        counts = {}  # type: Dict[str, int]
        for operator in self.operators:
            name = "CUSTOM:" + operator.name if operator.custom else operator.name
            counts[name] = counts.get(name, 0) + 1
        return counts

    @property
    def edge_tpu_operators(self):
        # type: () -> int
        """How many operators are parts of the model that were compiled for an Edge TPU."""
        return sum(1 for operator in self.operators if operator.custom and operator.name == EDGE_TPU_OPERATOR)


def read(path):
    # type: (str) -> TfLiteFile
    """Raises :class:`NotTfLiteError` where the file is none."""
    with open(path, "rb") as stream:
        return parse(stream.read())


def parse(content):
    # type: (bytes) -> TfLiteFile
    """As :func:`read`, of the file's bytes."""
    if content[4:8] != IDENTIFIER:
        raise NotTfLiteError("it does not begin as a TensorFlow Lite file")
    try:
        return _model(root(content))
    except (struct.error, IndexError):
        raise NotTfLiteError("it begins as a TensorFlow Lite file, but was cut or damaged")


def root(content):
    # type: (bytes) -> Table
    """The outermost table of a FlatBuffers file."""
    return Table(content, struct.unpack_from("<I", content, 0)[0])


def _model(model):
    # type: (Table) -> TfLiteFile
    codes = [_operator(code) for code in model.tables(1)]
    operators, inputs, outputs = [], [], []  # type: List[Operator], List[Tensor], List[Tensor]
    for number, graph in enumerate(model.tables(2)):
        operators += [codes[operator.number(0, "I")] for operator in graph.tables(3)]
        if number == 0:
            tensors = [_tensor(table) for table in graph.tables(0)]
            inputs, outputs = ([tensors[index] for index in graph.numbers(field) if index >= 0] for field in (1, 2))
    return TfLiteFile(model.text(3), operators, inputs, outputs, _signature_outputs(model))


def _signature_outputs(model):
    # type: (Table) -> List[Tuple[str, int]]
    for signature in model.tables(7):
        if signature.number(4, "I") == 0:
            return [(tensor.text(0), tensor.number(1, "I")) for tensor in signature.tables(1)]
    return []


def _operator(code):
    # type: (Table) -> Operator
    old = code.number(0, "b")
    number = code.number(3, "i") if old >= _OLD_CODE_IS_FULL else max(old, code.number(3, "i"))
    version = code.number(2, "i", 1)
    if number == CUSTOM:
        return Operator(code.text(1), version, True)
    known = 0 <= number < len(BUILTIN_OPERATORS)
    return Operator(BUILTIN_OPERATORS[number] if known else "operator %d" % number, version, False)


def _tensor(table):
    # type: (Table) -> Tensor
    number = table.number(1, "b")
    dtype = TENSOR_TYPES[number] if 0 <= number < len(TENSOR_TYPES) else "type %d" % number
    return Tensor(table.text(3), dtype, table.numbers(0))


class Table:
    """One table of the file, by the numbers of its fields. Raises IndexError or struct.error where the file is damaged."""

    def __init__(self, content, position):
        # type: (bytes, int) -> None
        self._content, self._position = content, position
        self._fields = position - self._read("i", position)
        self._size = self._read("H", self._fields)

    def _read(self, form, position):
        # type: (str, int) -> int
        if position < 0:  # Python would count it from the end
            raise IndexError(position)
        return int(struct.unpack_from("<" + form, self._content, position)[0])

    def _place(self, field):
        # type: (int) -> Optional[int]
        entry = 4 + 2 * field
        offset = self._read("H", self._fields + entry) if entry + 2 <= self._size else 0
        return self._position + offset if offset else None

    def number(self, field, form, default=0):
        # type: (int, str, int) -> int
        place = self._place(field)
        return default if place is None else self._read(form, place)

    def _vector(self, field, size):
        # type: (int, int) -> Tuple[int, int]
        """Where the elements of a vector begin, and how many there are; elements of ``size`` bytes."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = place + self._read("I", place)
        length = self._read("I", start)
        if start + 4 + size * length > len(self._content):
            raise IndexError(start)
        return start + 4, length

    def numbers(self, field):
        # type: (int) -> List[int]
        start, length = self._vector(field, 4)
        return list(struct.unpack_from("<%di" % length, self._content, start)) if length else []

    def floats(self, field):
        # type: (int) -> List[float]
        start, length = self._vector(field, 4)
        return list(struct.unpack_from("<%df" % length, self._content, start)) if length else []

    def long_numbers(self, field):
        # type: (int) -> List[int]
        start, length = self._vector(field, 8)
        return list(struct.unpack_from("<%dq" % length, self._content, start)) if length else []

    def data(self, field):
        # type: (int) -> bytes
        start, length = self._vector(field, 1)
        return self._content[start : start + length]

    def text(self, field):
        # type: (int) -> str
        return self.data(field).decode("utf-8", "replace")

    def table(self, field):
        # type: (int) -> Optional[Table]
        place = self._place(field)
        return None if place is None else Table(self._content, place + self._read("I", place))

    def tables(self, field):
        # type: (int) -> Iterator[Table]
        start, length = self._vector(field, 4)
        for place in range(start, start + 4 * length, 4):
            yield Table(self._content, place + self._read("I", place))
