"""Model cards: what a TOML file in ``models/`` says of a model, validated.

The schema below says what each key means. What one key demands of another (an ``int8`` precision needs pictures to calibrate
with, a checkpoint comes from one place only) is checked by :func:`load_card`, which lists every problem of a card at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PositiveInt, StringConstraints, ValidationError

from .backends import BACKENDS, BackendInfo, KnownBackends, backend_infos
from .card_tables.backend_options import PATTERNS_IN_WORDS, BackendOptions
from .card_tables.detection import Detection, Task, detection_problems
from .card_tables.limits import Limits, limit_problems
from .card_tables.measuring import Measuring, measuring_problems
from .card_tables.section import CardSection
from .card_tables.stream import StreamSection, stream_problems
from .card_tables.variants import Variants, variant_problems
from .errors import CardError

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
_PATTERNS_IN_WORDS = {
    _NAME_PATTERN: "lower-case letters, digits, '_' and '.', beginning with a letter or a digit",
    _SHA256_PATTERN: "64 lower-case hexadecimal digits",
    _SHA256_PREFIX_PATTERN: "8 to 63 lower-case hexadecimal digits, the first ones of a SHA-256",
    _MD5_PATTERN: "32 lower-case hexadecimal digits",
    _FUNCTION_PATTERN: "the dotted name of a constructor in keras.applications or torchvision.models, such as "
    "'keras.applications.MobileNetV2' or 'torchvision.models.mobilenet_v2', or 'keras.Sequential' with layers",
    **PATTERNS_IN_WORDS,
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


def load_card(
    path: Path,
    known_backends: KnownBackends = BACKENDS,
    *,
    extra_scalings: Collection[str] = (),
) -> ModelCard:
    """Read the card at ``path``.

    ``known_backends`` maps the name of each backend to what its cases can be, or to its precisions alone; ``extra_scalings`` are names
    of scalings that hooks add to :data:`BUILT_IN_SCALINGS`. Raises :class:`CardError` with one line for each problem.
    """
    path = Path(path)
    document = _read_toml(path)
    if "path" in document:
        raise _card_error(path, [("path", _unknown_key("path", [name for name in ModelCard.model_fields if name != "path"]))])
    try:
        card = ModelCard.model_validate({**document, "path": path})
    except ValidationError as error:
        # Same key, same words: a union (a value or nothing) reports each of its arms.
        problems = list(dict.fromkeys(_in_words(detail) for detail in error.errors(include_url=False)))
        raise _card_error(path, problems) from None
    problems = [
        *_checkpoint_problems(card.checkpoint),
        *_architecture_problems(card),
        *_input_problems(card),
        *_data_problems("evaluation", card.evaluation),
        *_data_problems("calibration", card.calibration),
        *_separation_problems(card),
        *_backend_problems(card, backend_infos(known_backends)),
        *_device_problems(card, backend_infos(known_backends)),
        *variant_problems(card, dict(backend_infos(known_backends))),
        *_option_problems(card, known_backends),
        *_coverage_problems(card),
        *limit_problems(card.limits, {precision for known in card.backends.values() for precision in known}),
        *detection_problems(card),
        *measuring_problems(card),
        *_scaling_problems(card, extra_scalings),
        *stream_problems(card.stream, card.directory),
    ]
    if problems:
        raise _card_error(path, problems)
    return card


def is_calibrated(card: ModelCard, backend: str, precision: str) -> bool:
    """Whether a conversion to the precision takes the ranges of activations from pictures.

    A .tflite file has the types that it has, and a card can say of TF-TRT that the graph has its ranges in it.
    """
    has_ranges = card.checkpoint.format == "tflite" or card.options.of(backend).get("use_calibration") is False
    return precision in CALIBRATED_PRECISIONS and not has_ranges


def load_cards(
    directory: Path,
    known_backends: KnownBackends = BACKENDS,
    *,
    extra_scalings: Collection[str] = (),
) -> list[ModelCard]:
    """Read every ``*.toml`` in ``directory`` and one level below it, in the order of their paths.

    Raises one :class:`CardError` that lists the problems of all cards; two cards of one name are a problem.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CardError(f"{directory} is not a directory; expected the directory that holds the model cards.")
    paths = sorted(
        found for pattern in ("*.toml", "*/*.toml") for found in directory.glob(pattern) if not found.name.endswith(".lock.toml")
    )
    cards: dict[str, ModelCard] = {}
    messages: list[str] = []
    for path in paths:
        try:
            card = load_card(path, known_backends, extra_scalings=extra_scalings)
        except CardError as error:
            messages.append(str(error))
            continue
        if card.name in cards:
            messages.append(
                f"{path}: name: found {card.name!r}, which {cards[card.name].path} has too; expected a name of its own"
            )
        else:
            cards[card.name] = card
    if messages:
        raise CardError("\n".join(messages))
    return list(cards.values())


def _read_toml(path: Path) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise CardError(f"{path}: there is no such file; expected a model card.") from None
    except OSError as error:
        raise CardError(
            f"{path}: the card cannot be read ({error.strerror}); check that it is a file and that it is readable."
        ) from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path}: the card is not TOML: byte {error.start} is not UTF-8; save the file as UTF-8.") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CardError(f"{path}: the card is not usable TOML: its values are nested too deeply.") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        reason = " ".join(str(error).split())
        raise CardError(f"{path}: the card is not TOML: {_shortened(reason, 200)}") from None


# A problem is the dotted key and the sentence that says what was found and what was expected.
Problem = tuple[str, str]


def _card_error(path: Path, problems: Sequence[Problem]) -> CardError:
    lines = [f"{key}: {text}" if key else text for key, text in problems]
    if len(lines) == 1:
        return CardError(f"{path}: {lines[0]}")
    return CardError(f"{path} has {len(lines)} problems:\n" + "\n".join(f"  {line}" for line in lines))


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _found(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    text = repr(value)
    return f"{_shortened(text if text.isprintable() else ascii(value))} ({_type_in_words(value)})"


def _type_in_words(value: Any) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", tuple: "an array"}
    return names.get(type(value), f"a {type(value).__name__}")


def _suggestion(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown_key(key: str, known: Collection[str]) -> str:
    return f"found a key that is not known here; expected one of {', '.join(sorted(known))}{_suggestion(key, known)}"


def _unknown_name(value: str, kind: str, known: Collection[str]) -> str:
    return f"found {_found(value)}, which is no known {kind}; expected one of {', '.join(known)}{_suggestion(value, known)}"


def _dotted(location: Sequence[int | str]) -> str:
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            name = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in _shortened(part))
            key += f".{name}" if key else name
    return key


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """The keys that the section at ``location`` can have; empty where that is no section."""
    section: type[BaseModel] | None = ModelCard
    for part in location:
        if section is None or not isinstance(part, str) or part not in section.model_fields:
            # A key of a table of tables (tolerance.by_precision.int8): stay in the section that its values have.
            continue
        section = _section_in(section.model_fields[part].annotation)
    return [name for name in section.model_fields if name != "path"] if section is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


_EXPECTED_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
    "string_unicode": "text",
    "int_parsing_size": "a smaller integer",
}


def _in_words(detail: Any) -> Problem:
    """One of pydantic's findings as a problem in this module's own words."""
    location: tuple[int | str, ...] = detail["loc"]
    kind: str = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    key = _dotted(location)
    found = _found(detail.get("input"))
    if kind == "missing":
        return key, "found nothing; this key is required" + _purpose(location)
    if kind == "extra_forbidden":
        return key, _unknown_key(str(location[-1]), _fields_at(location[:-1]))
    if kind == "literal_error":
        known = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        value = detail.get("input")
        return key, f"found {found}, expected one of {', '.join(known)}" + (
            _suggestion(value, known) if isinstance(value, str) else ""
        )
    if kind == "string_pattern_mismatch":
        return key, f"found {found}, expected {_PATTERNS_IN_WORDS[str(context['pattern'])]}"
    limits = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in limits:
        comparison = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}[limits[kind]]
        return key, f"found {found}, expected {comparison} {context[limits[kind]]:g}"
    if kind in ("too_short", "string_too_short"):
        return key, "found nothing in it, expected at least one value" if kind == "too_short" else "found an empty string"
    if kind in _EXPECTED_TYPES:
        return key, f"found {found}, expected {_EXPECTED_TYPES[kind]}"
    return key, f"found {found}, which is not a value that this key can have"


def _purpose(location: Sequence[int | str]) -> str:
    purposes = {
        "name": ": the model's name in test ids",
        "checkpoint": ": a table that says where the weights come from",
        "input": ": a table with the shape of the model's input",
        "shape": ": such as [224, 224, 3]",
        "labels": ": a table with the count of classes",
        "count": ": how many classes the model has",
        "backends": ": a table such as tflite = ['fp32', 'int8']",
        "format": f": one of {', '.join(get_args(CheckpointFormat))}",
    }
    return purposes.get(str(location[-1]), "")


def _checkpoint_problems(checkpoint: Checkpoint) -> Iterable[Problem]:
    given = [name for name in ("file", "url", "seed") if getattr(checkpoint, name) is not None]
    if checkpoint.format == "seeded":
        if checkpoint.seed is None:
            yield "checkpoint.seed", "found nothing; a seeded checkpoint needs the seed that its weights are drawn from"
        for name in ("file", "url", "sha256", "sha256_prefix", "md5", "member"):
            if getattr(checkpoint, name) is not None:
                yield f"checkpoint.{name}", "found a value, expected none: a seeded checkpoint has no file"
    elif checkpoint.seed is not None:
        yield (
            "checkpoint.seed",
            f"found a value, expected none with format {checkpoint.format!r}: only format 'seeded' draws weights",
        )
    elif not given:
        yield "checkpoint", "found neither file nor url, expected one of them"
    elif len(given) > 1:
        yield "checkpoint", f"found {' and '.join(given)}, expected only one of them"
    if checkpoint.format in ("keras_weights", "torch_weights", "seeded"):
        if checkpoint.architecture is None:
            yield (
                "checkpoint.architecture",
                f"found nothing; format {checkpoint.format!r} needs the architecture that the weights belong to, "
                f"such as {{function = '{_EXAMPLES[checkpoint.format == 'torch_weights']}'}}",
            )
        else:
            for name in _WEIGHT_ARGUMENTS:
                if name in checkpoint.architecture.arguments:
                    yield (
                        f"checkpoint.architecture.arguments.{name}",
                        "found a value, expected none: the weights come from the checkpoint",
                    )
    elif checkpoint.architecture is not None:
        yield (
            "checkpoint.architecture",
            f"found a value, expected none with format {checkpoint.format!r}: its file holds the architecture",
        )
    for name in ("inputs", "outputs"):
        tensors = getattr(checkpoint, name)
        if checkpoint.format in ("tf1_checkpoint", "frozen_graph"):
            if not tensors:
                kind, example = (
                    ("Placeholder nodes", "input:0") if name == "inputs" else ("nodes that feed no other node", "Softmax:0")
                )
                yield (
                    f"checkpoint.{name}",
                    f"found nothing; format {checkpoint.format!r} needs the names of the graph's {name}, such as ['{example}']: "
                    f"a graph viewer shows them as the {kind}",
                )
        elif tensors and checkpoint.format != "saved_model":
            yield (
                f"checkpoint.{name}",
                f"found a value, expected none with format {checkpoint.format!r}: its file names its {name}",
            )
    if checkpoint.allow_lambda and checkpoint.format != "keras":
        yield (
            "checkpoint.allow_lambda",
            f"found true with format {checkpoint.format!r}, expected none: only a whole Keras model can have Lambda layers",
        )
    if checkpoint.url is not None:
        yield from _url_problems("checkpoint.url", checkpoint.url)


_EXAMPLES = ("keras.applications.MobileNetV2", "torchvision.models.mobilenet_v2")
_WEIGHT_ARGUMENTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")
_TORCH_BACKENDS = ("torch", "torch2trt", "onnxruntime", "tensorrt")


def _architecture_problems(card: ModelCard) -> Iterable[Problem]:
    """What an architecture demands of the rest: whose weights, which layout, which backends."""
    architecture = card.checkpoint.architecture
    if architecture is None:
        return
    key, of_torchvision = "checkpoint.architecture.function", architecture.is_of_torchvision
    whose = {"keras_weights": False, "torch_weights": True}.get(card.checkpoint.format, of_torchvision)
    if whose != of_torchvision:
        place = "torchvision.models" if whose else "keras.applications"
        yield key, f"found {_found(architecture.function)}, expected one in {place} with format {card.checkpoint.format!r}"
        return
    if not of_torchvision:
        yield from _layer_problems(architecture)
        return
    if card.input.layout != "nchw":
        yield "input.layout", f"found {_found(card.input.layout)}, expected 'nchw': the models of torchvision take channels first"
    for backend in card.backends:
        if backend in BACKENDS and backend not in _TORCH_BACKENDS:
            yield (
                _dotted(("backends", backend)),
                f"found a backend that takes no architecture of torchvision, expected {', '.join(_TORCH_BACKENDS)}; "
                "those of TensorFlow read no checkpoint of PyTorch",
            )


def _layer_problems(architecture: Architecture) -> Iterable[Problem]:
    """What ``keras.Sequential`` needs."""
    if architecture.function != "keras.Sequential":
        return
    key = "checkpoint.architecture.arguments"
    layers = architecture.arguments.get("layers")
    if set(architecture.arguments) != {"layers"} or not isinstance(layers, list) or not layers:
        yield (
            key,
            "found other arguments, expected layers alone with 'keras.Sequential': an array of tables that name a layer each",
        )
        return
    for index, layer in enumerate(layers):
        if not isinstance(layer, Mapping) or not isinstance(layer.get("layer"), str):
            yield (
                f"{key}.layers[{index}]",
                f"found {_found(layer)}, expected a table such as {{ layer = 'Conv2D', filters = 32, kernel_size = 3 }}",
            )


def _url_problems(key: str, url: str) -> Iterable[Problem]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises ValueError where that is no number
    except ValueError:
        yield key, f"found {_found(url)}, expected a URL that begins with https:// or http://"
        return
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        yield (
            key,
            f"found {_found(url)}, expected a URL that begins with https:// or http://; a file on this machine goes under 'file'",
        )
    elif parts.username is not None or parts.password is not None:
        yield key, "found a user name or a password in the URL; leave them out and put them into ~/.netrc"


def _input_problems(card: ModelCard) -> Iterable[Problem]:
    shape = card.input.shape
    if len(shape) != 3:
        order = "[height, width, channels]" if card.input.layout == "nhwc" else "[channels, height, width]"
        yield "input.shape", f"found {list(shape)}, expected three numbers without the batch: {order}"
        return
    channels = 1 if card.preprocessing.channel_order == "grayscale" else 3
    if card.input.channels != channels:
        wanted = "preprocessing.channel_order = 'grayscale' for 1 channel, 'rgb' or 'bgr' for 3"
        yield (
            "input.shape",
            f"found {card.input.channels} channels in {list(shape)} (layout {card.input.layout!r}), "
            f"expected {channels} with channel_order {card.preprocessing.channel_order!r}; {wanted}",
        )
    shorter_side = card.preprocessing.resize_shorter_side
    if shorter_side is not None:
        longest = max(card.input.height, card.input.width)
        if card.preprocessing.resize != "resize_and_crop":
            yield "preprocessing.resize_shorter_side", "found a value, expected none unless resize is 'resize_and_crop'"
        elif shorter_side < longest:
            yield (
                "preprocessing.resize_shorter_side",
                f"found {shorter_side}, expected at least the input's longer side, {longest}",
            )


def _data_problems(section: str, source: DataSource | None) -> Iterable[Problem]:
    if source is None:
        return
    given = [name for name in ("file", "url", "seed") if getattr(source, name) is not None]
    if not given:
        yield section, "found neither file, url nor seed, expected one of them"
    elif len(given) > 1:
        yield section, f"found {' and '.join(given)}, expected only one of them"
    elif source.seed is not None:
        if source.count is None:
            yield f"{section}.count", "found nothing; seeded pictures need how many there are"
        for name in ("labels", "sha256", "member", "limit", "top1"):
            if getattr(source, name, None) is not None:
                yield f"{section}.{name}", "found a value, expected none: seeded pictures have no file and no labels"
    elif source.count is not None:
        yield f"{section}.count", "found a value, expected none without seed; 'limit' takes the first so many pictures of a set"
    if source.url is not None:
        yield from _url_problems(f"{section}.url", source.url)


def _separation_problems(card: ModelCard) -> Iterable[Problem]:
    """What is calibrated on the evaluation set looks better than it is."""
    evaluation, calibration = card.evaluation_source, card.calibration
    if calibration is None:
        return
    if calibration.seed is not None:
        if calibration.seed == evaluation.seed:
            whose = "the evaluation set's" if card.evaluation else "the one of the pictures that stand in for an evaluation set"
            yield "calibration.seed", f"found {calibration.seed}, which is {whose}; expected another seed"
        return
    # One folder can hold both sets where two CSVs divide it; the pictures themselves are compared once they are loaded.
    if calibration.labels != evaluation.labels:
        return
    if calibration.file is not None and evaluation.file is not None:
        same_file = (card.directory / calibration.file).resolve() == (card.directory / evaluation.file).resolve()
        if same_file and calibration.member == evaluation.member:
            yield "calibration.file", f"found {_found(calibration.file)}, which is the evaluation set; expected other pictures"
            return
    if calibration.url is not None and calibration.url == evaluation.url and calibration.member == evaluation.member:
        yield "calibration.url", f"found {_found(calibration.url)}, which is the evaluation set; expected other pictures"
    elif calibration.sha256 is not None and calibration.sha256 == evaluation.sha256 and calibration.member == evaluation.member:
        yield "calibration.sha256", f"found {calibration.sha256}, which is the evaluation set's digest; expected other pictures"


def _backend_problems(card: ModelCard, known_backends: Mapping[str, BackendInfo]) -> Iterable[Problem]:
    for backend, precisions in card.backends.items():
        key = _dotted(("backends", backend))
        if backend not in known_backends:
            yield key, _unknown_name(backend, "backend", list(known_backends))
            continue
        known = known_backends[backend].precisions
        if not precisions:
            yield key, f"found an empty array, expected at least one of {', '.join(known)}"
        for index, precision in enumerate(precisions):
            if precision not in known:
                yield f"{key}[{index}]", _unknown_name(precision, f"precision of {backend}", known)
            elif precision in precisions[:index]:
                yield f"{key}[{index}]", f"found {precision!r} a second time, expected each precision once"
            elif card.calibration is None and is_calibrated(card, backend, precision):
                yield (
                    f"{key}[{index}]",
                    f"found {precision!r} but no calibration set; expected a [calibration] table with pictures "
                    "that are not in the evaluation set",
                )
    for name in ("batches", "threads"):
        values = getattr(card, name)
        for index, value in enumerate(values):
            if value in values[:index]:
                yield f"{name}[{index}]", f"found {value} a second time, expected each number once"
    precisions = list(dict.fromkeys(precision for info in known_backends.values() for precision in info.precisions))
    for precision in card.tolerance.by_precision:
        if precision not in precisions:
            yield _dotted(("tolerance", "by_precision", precision)), _unknown_name(precision, "precision", precisions)


def _coverage_problems(card: ModelCard) -> Iterable[Problem]:
    for backend, section in card.coverage.items():
        key = _dotted(("coverage", backend))
        if backend not in card.backends:
            yield key, _unknown_name(backend, "backend of this card", list(card.backends))
        elif section.minimum_share is None and section.maximum_off_chip_bytes is None:
            yield key, "found an empty table, expected minimum_share, maximum_off_chip_bytes or both"


def _device_problems(card: ModelCard, known_backends: Mapping[str, BackendInfo]) -> Iterable[Problem]:
    for backend, devices in card.devices.items():
        key = _dotted(("devices", backend))
        if backend not in card.backends:
            yield key, _no_case_of(backend, card)
            continue
        if backend not in known_backends:
            continue  # said of [backends] already
        info = known_backends[backend]
        unknown = [device for device in devices if device not in info.devices]
        for index, device in enumerate(devices):
            if device in unknown:
                yield f"{key}[{index}]", _unknown_name(device, f"device of {backend}", info.devices)
            elif device in devices[:index]:
                yield f"{key}[{index}]", f"found {device!r} a second time, expected each device once"
        if unknown:
            continue
        for precision in card.backends[backend]:
            able = [device for device in info.devices if info.runs(precision, device)]
            if able and not set(able) & set(devices):
                yield (
                    key,
                    f"found {', '.join(devices)}, where {backend} has no {precision}; expected {' or '.join(able)} too, "
                    f"or no {precision} in backends.{backend}",
                )


def _option_problems(card: ModelCard, known_backends: Collection[str]) -> Iterable[Problem]:
    for backend, table in card.options.tables().items():
        key = _dotted(("options", backend))
        if backend not in known_backends:
            yield key, _unknown_name(backend, "backend", list(known_backends))
        elif backend in BACKENDS and backend not in BackendOptions.model_fields:
            yield key, f"found options, expected none: the backend {backend} has none"
        elif not isinstance(table, (BaseModel, Mapping)):
            yield key, f"found {_found(table)}, expected a table"
        elif backend not in card.backends:
            yield key, _no_case_of(backend, card)


def _no_case_of(backend: str, card: ModelCard) -> str:
    known = card.backends
    return f"found a value, but [backends] has no {backend}; expected one of {', '.join(known)}{_suggestion(backend, known)}"


def _scaling_problems(card: ModelCard, extra_scalings: Collection[str]) -> Iterable[Problem]:
    preprocessing = card.preprocessing
    key = "preprocessing.scaling"
    known = [*BUILT_IN_SCALINGS, *extra_scalings]
    if preprocessing.scaling not in known:
        yield key, _unknown_name(preprocessing.scaling, "scaling", known)
    elif preprocessing.scaling == "imagenet_mean_bgr" and preprocessing.channel_order != "bgr":
        yield key, f"found 'imagenet_mean_bgr' with channel_order {preprocessing.channel_order!r}, expected channel_order = 'bgr'"
    elif preprocessing.scaling == "imagenet_mean_std" and preprocessing.channel_order == "grayscale":
        yield key, "found 'imagenet_mean_std' with channel_order 'grayscale', expected three channels"
    elif card.input.dtype == "uint8" and preprocessing.scaling in BUILT_IN_SCALINGS[1:]:
        yield (
            key,
            f"found {preprocessing.scaling!r} with input.dtype 'uint8', expected 'none': whole numbers cannot hold scaled pixels",
        )
    if card.input.dtype == "uint8" and preprocessing.maximum > 255:
        yield "preprocessing.maximum", f"found {preprocessing.maximum:g} with input.dtype 'uint8', expected at most 255"
