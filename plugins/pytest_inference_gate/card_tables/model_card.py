"""The schema of a model card: what each key means. The tables that are a concept of their own have modules of their own beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints

from .backend_options import PATTERNS_IN_WORDS as PATTERNS_OF_OPTIONS
from .backend_options import BackendOptions
from .detection import Detection, Task
from .limits import Limits
from .measuring import Measuring
from .section import CardSection
from .stream import StreamSection
from .variants import Variants

BUILT_IN_SCALINGS = ("none", "zero_to_one", "minus_one_to_one", "imagenet_mean_std", "imagenet_mean_bgr")
CALIBRATED_PRECISIONS = frozenset({"int8", "full_int8"})  # those whose activations are quantized ahead of time

DEFAULT_EVALUATION_SEED = 1
DEFAULT_EVALUATION_COUNT = 64
"""What stands in for a missing evaluation set: so many seeded pictures drawn from this seed (see ``datasets.seeded_images``)."""

_NAME_PATTERN = r"^[a-z0-9][a-z0-9_.]*$"
_SHA256_PATTERN = r"^[0-9a-f]{64}$"
_SHA256_PREFIX_PATTERN = r"^[0-9a-f]{8,63}$"
_MD5_PATTERN = r"^[0-9a-f]{32}$"
_FUNCTION_PATTERN = r"^((keras\.applications|torchvision\.models)\.[A-Za-z0-9_.]+|keras\.Sequential)$"
PATTERNS_IN_WORDS = {
    _NAME_PATTERN: "lower-case letters, digits, '_' and '.', beginning with a letter or a digit",
    _SHA256_PATTERN: "64 lower-case hexadecimal digits",
    _SHA256_PREFIX_PATTERN: "8 to 63 lower-case hexadecimal digits, the first ones of a SHA-256",
    _MD5_PATTERN: "32 lower-case hexadecimal digits",
    _FUNCTION_PATTERN: "the dotted name of a constructor in keras.applications or torchvision.models, such as "
    "'keras.applications.MobileNetV2' or 'torchvision.models.mobilenet_v2', or 'keras.Sequential' with layers",
    **PATTERNS_OF_OPTIONS,
}

Name = Annotated[str, StringConstraints(pattern=_NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256_PATTERN)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's and TensorFlow's generators both take

CheckpointFormat = Literal[
    "keras",  # a whole model: .keras, or .h5 that holds its architecture too
    "keras_weights",  # weights alone (.h5, .weights.h5): needs an architecture
    "torch_weights",  # a state dict of PyTorch alone (.pth, .pt): needs an architecture
    "seeded",  # no file: an architecture with weights drawn from a seed; latency and agreement only
    "saved_model",  # a directory, or an archive that holds one
    "tf1_checkpoint",  # .ckpt.index/.data with a .meta graph, or an archive that holds them
    "frozen_graph",  # a GraphDef .pb whose variables are constants, or an archive that holds one
    "tflite",
    "onnx",
    "other",  # a file that only a backend which a plugin adds can convert
]


class Architecture(CardSection):
    """A constructor of ``keras.applications`` or ``torchvision.models``, called with ``arguments`` and no weights.

    Or ``keras.Sequential``, whose one argument ``layers`` is a list of tables: ``layer`` names a class of ``keras.layers``, the rest are
    its arguments.
    """

    function: Annotated[str, StringConstraints(pattern=_FUNCTION_PATTERN)]
    arguments: dict[str, Any] = {}

    @property
    def is_of_torchvision(self) -> bool:
        return self.function.startswith("torchvision.")


class Checkpoint(CardSection):
    """Where the weights come from: ``file`` beside the card, or ``url`` with a digest, or a seeded architecture."""

    format: CheckpointFormat
    file: NonEmpty | None = None
    url: NonEmpty | None = None
    sha256: Sha256 | None = None
    sha256_prefix: Annotated[str, StringConstraints(pattern=_SHA256_PREFIX_PATTERN)] | None = (
        None  # as in PyTorch's names of files
    )
    md5: Annotated[str, StringConstraints(pattern=_MD5_PATTERN)] | None = None  # where the publisher gives no SHA-256
    member: NonEmpty | None = None  # the path inside the archive
    architecture: Architecture | None = None
    seed: Seed | None = None
    inputs: list[NonEmpty] = []  # names of the graph's tensors, for tf1_checkpoint and frozen_graph
    outputs: list[NonEmpty] = []
    allow_lambda: bool = False  # of a Keras file: load it although its Lambda layers are program code that runs
    maximum_unpacked_bytes: PositiveInt = 8 * 2**30


class Input(CardSection):
    """The model's one input, without the batch dimension: height, width, channels for ``nhwc``; channels first for ``nchw``."""

    shape: Annotated[tuple[PositiveInt, ...], Field(strict=False)]  # TOML has arrays, not tuples
    dtype: Literal["float32", "uint8"] = "float32"
    layout: Literal["nhwc", "nchw"] = "nhwc"

    @property
    def height(self) -> int:
        return self.shape[0] if self.layout == "nhwc" else self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[1] if self.layout == "nhwc" else self.shape[2]

    @property
    def channels(self) -> int:
        return self.shape[2] if self.layout == "nhwc" else self.shape[0]


class Preprocessing(CardSection):
    """From a picture to the model's input. Defaults do nothing but turn the picture into ``float32``.

    The order is fixed: channels, resize, channel order, scaling, layout. ``resize`` squeezes the whole picture into the input's
    size, as Keras does; ``resize_and_crop`` brings the shorter side to ``resize_shorter_side`` and cuts out the middle, as
    PyTorch's reference does.
    """

    resize: Literal["none", "resize", "resize_and_crop"] = "none"
    resize_shorter_side: PositiveInt | None = None  # resize_and_crop: default is the input's longer side / 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    channel_order: Literal["rgb", "bgr", "grayscale"] = "rgb"
    scaling: str = "none"  # none, zero_to_one, minus_one_to_one, imagenet_mean_std, imagenet_mean_bgr, or one added by a hook
    maximum: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 255.0  # a pixel's largest value (scikit-learn's digits: 16)


class Labels(CardSection):
    """``offset`` is added to a label of the evaluation set to give the index in the model's output (1: class 0 is background)."""

    count: PositiveInt
    file: NonEmpty | None = None  # one name a line, in the order of the model's output
    offset: int = 0


class DataSource(CardSection):
    """Pictures, with labels or without.

    One of: ``file``, an ``.npz`` with ``images`` (N, H, W[, C]) and ``labels`` (N,), or a folder with a CSV that has the columns
    ``file`` and ``label``; ``url`` of the same, a folder being packed in an archive; or ``seed`` and ``count`` for pictures
    drawn from a random generator, which have no labels.
    """

    file: NonEmpty | None = None  # .npz or folder, beside the card
    labels: NonEmpty | None = None  # CSV, for a folder; relative to the card, or inside the archive
    url: NonEmpty | None = None
    sha256: Sha256 | None = None  # of the file that ``file`` or ``url`` names
    member: NonEmpty | None = None  # the folder or .npz inside the archive; default: the archive's root
    limit: PositiveInt | None = None  # the first so many only
    seed: Seed | None = None
    count: PositiveInt | None = None
    maximum_unpacked_bytes: PositiveInt = 8 * 2**30


class Evaluation(DataSource):
    top1: Annotated[float, Field(ge=0, le=1)] | None = None  # what the float model is expected to reach
    annotations: NonEmpty | None = None  # of a detection set: COCO instances, relative to the card, or inside the archive
    map: Annotated[float, Field(ge=0, le=1)] | None = None  # as top1, for a detection model: COCO mAP


class PrecisionTolerance(CardSection):
    """Overrides for one precision."""

    latency: Annotated[float, Field(gt=0, lt=10)] | None = None
    top1_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    map_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    matched: Annotated[float, Field(ge=0, le=1)] | None = None


class Tolerance(CardSection):
    """How much worse is still good enough. Shares of 1, so 0.05 is 5 %."""

    latency: Annotated[float, Field(gt=0, lt=10)] | None = None  # None: the option's value
    top1_drop: Annotated[float, Field(ge=0, le=1)] = 0.01  # against the float reference, in shares of the evaluation set
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None  # the least share of equal top-1, for sets without labels
    map_drop: Annotated[float, Field(ge=0, le=1)] = 0.01  # of a detection model: against the float reference, in mAP 0..1
    matched: Annotated[float, Field(ge=0, le=1)] | None = (
        None  # the least share of matched detections, for sets without annotations
    )
    by_precision: dict[str, PrecisionTolerance] = {}


class CoverageSection(CardSection):
    """What has to run on the accelerator of one backend, whatever the baseline is; red where the backend cannot tell."""

    minimum_share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the operations that are counted
    maximum_off_chip_bytes: Annotated[int, Field(ge=0)] | None = None  # weights that are streamed at each inference


class ModelCard(CardSection):
    name: Name
    description: str = ""
    license: str = ""
    source: str = ""
    default: bool = True  # false: only where --gate-select names it
    task: Task = "classification"
    checkpoint: Checkpoint
    input: Input
    detection: Detection | None = None
    preprocessing: Preprocessing = Preprocessing()
    labels: Labels
    evaluation: Evaluation | None = None  # None: seeded pictures, agreement with the float reference only
    calibration: DataSource | None = None
    tolerance: Tolerance = Tolerance()
    measuring: Measuring = Measuring()
    coverage: dict[str, CoverageSection] = {}  # by backend
    limits: Limits = Limits()
    backends: Annotated[dict[str, list[str]], Field(min_length=1)]  # backend -> precisions
    devices: dict[str, Annotated[list[str], Field(min_length=1)]] = {}  # backend -> devices; default: all that the backend has
    variants: Variants = {}  # backend -> rewrites of the graph that are cases of their own; default: as_is alone
    options: BackendOptions = BackendOptions()
    batches: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    threads: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    stream: StreamSection | None = None
    path: Path = Field(exclude=True)  # the card's own file

    @property
    def directory(self) -> Path:
        return self.path.parent

    @property
    def evaluation_source(self) -> DataSource:
        """The evaluation set, or the seeded pictures that stand in for it where the card has none."""
        return self.evaluation or Evaluation(seed=DEFAULT_EVALUATION_SEED, count=DEFAULT_EVALUATION_COUNT)


def is_calibrated(card: ModelCard, backend: str, precision: str) -> bool:
    """Whether a conversion to the precision takes the ranges of activations from pictures.

    A .tflite file has the types that it has, and a card can say of TF-TRT that the graph has its ranges in it.
    """
    has_ranges = card.checkpoint.format == "tflite" or card.options.of(backend).get("use_calibration") is False
    return precision in CALIBRATED_PRECISIONS and not has_ranges
