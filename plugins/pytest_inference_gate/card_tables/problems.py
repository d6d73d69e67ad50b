"""What one key of a card demands of another: an ``int8`` precision needs pictures to calibrate with, a checkpoint comes from one place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import urlsplit

from pydantic import BaseModel

from ..backends import BACKENDS, BackendInfo, KnownBackends, backend_infos
from .backend_options import BackendOptions
from .detection import detection_problems
from .limits import limit_problems
from .measuring import measuring_problems
from .model_card import (
    BUILT_IN_SCALINGS,
    Architecture,
    Checkpoint,
    DataSource,
    ModelCard,
    is_calibrated,
)
from .stream import stream_problems
from .variants import variant_problems
from .words import Problem, dotted, found_in_words, suggestion, unknown_name


def problems_of(card: ModelCard, known_backends: KnownBackends, extra_scalings: Collection[str]) -> list[Problem]:
    """All at once, in the order of the card's tables. Arguments as of :func:`cards.load_card`."""
    infos = backend_infos(known_backends)
    return [
        *_checkpoint_problems(card.checkpoint),
        *_architecture_problems(card),
        *_input_problems(card),
        *_data_problems("evaluation", card.evaluation),
        *_data_problems("calibration", card.calibration),
        *_separation_problems(card),
        *_backend_problems(card, infos),
        *_device_problems(card, infos),
        *variant_problems(card, dict(infos)),
        *_option_problems(card, known_backends),
        *_coverage_problems(card),
        *limit_problems(card.limits, {precision for known in card.backends.values() for precision in known}),
        *detection_problems(card),
        *measuring_problems(card),
        *_scaling_problems(card, extra_scalings),
        *stream_problems(card.stream, card.directory),
    ]


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
        yield (
            key,
            f"found {found_in_words(architecture.function)}, expected one in {place} with format {card.checkpoint.format!r}",
        )
        return
    if not of_torchvision:
        yield from _layer_problems(architecture)
        return
    if card.input.layout != "nchw":
        yield (
            "input.layout",
            f"found {found_in_words(card.input.layout)}, expected 'nchw': the models of torchvision take channels first",
        )
    for backend in card.backends:
        if backend in BACKENDS and backend not in _TORCH_BACKENDS:
            yield (
                dotted(("backends", backend)),
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
                f"found {found_in_words(layer)}, expected a table such as {{ layer = 'Conv2D', filters = 32, kernel_size = 3 }}",
            )


def _url_problems(key: str, url: str) -> Iterable[Problem]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises ValueError where that is no number
    except ValueError:
        yield key, f"found {found_in_words(url)}, expected a URL that begins with https:// or http://"
        return
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        yield (
            key,
            f"found {found_in_words(url)}, expected a URL that begins with https:// or http://; a file on this machine goes under 'file'",
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
            yield (
                "calibration.file",
                f"found {found_in_words(calibration.file)}, which is the evaluation set; expected other pictures",
            )
            return
    if calibration.url is not None and calibration.url == evaluation.url and calibration.member == evaluation.member:
        yield "calibration.url", f"found {found_in_words(calibration.url)}, which is the evaluation set; expected other pictures"
    elif calibration.sha256 is not None and calibration.sha256 == evaluation.sha256 and calibration.member == evaluation.member:
        yield "calibration.sha256", f"found {calibration.sha256}, which is the evaluation set's digest; expected other pictures"


def _backend_problems(card: ModelCard, known_backends: Mapping[str, BackendInfo]) -> Iterable[Problem]:
    for backend, precisions in card.backends.items():
        key = dotted(("backends", backend))
        if backend not in known_backends:
            yield key, unknown_name(backend, "backend", list(known_backends))
            continue
        known = known_backends[backend].precisions
        if not precisions:
            yield key, f"found an empty array, expected at least one of {', '.join(known)}"
        for index, precision in enumerate(precisions):
            if precision not in known:
                yield f"{key}[{index}]", unknown_name(precision, f"precision of {backend}", known)
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
            yield dotted(("tolerance", "by_precision", precision)), unknown_name(precision, "precision", precisions)


def _coverage_problems(card: ModelCard) -> Iterable[Problem]:
    for backend, section in card.coverage.items():
        key = dotted(("coverage", backend))
        if backend not in card.backends:
            yield key, unknown_name(backend, "backend of this card", list(card.backends))
        elif section.minimum_share is None and section.maximum_off_chip_bytes is None:
            yield key, "found an empty table, expected minimum_share, maximum_off_chip_bytes or both"


def _device_problems(card: ModelCard, known_backends: Mapping[str, BackendInfo]) -> Iterable[Problem]:
    for backend, devices in card.devices.items():
        key = dotted(("devices", backend))
        if backend not in card.backends:
            yield key, _no_case_of(backend, card)
            continue
        if backend not in known_backends:
            continue  # said of [backends] already
        info = known_backends[backend]
        unknown = [device for device in devices if device not in info.devices]
        for index, device in enumerate(devices):
            if device in unknown:
                yield f"{key}[{index}]", unknown_name(device, f"device of {backend}", info.devices)
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
        key = dotted(("options", backend))
        if backend not in known_backends:
            yield key, unknown_name(backend, "backend", list(known_backends))
        elif backend in BACKENDS and backend not in BackendOptions.model_fields:
            yield key, f"found options, expected none: the backend {backend} has none"
        elif not isinstance(table, (BaseModel, Mapping)):
            yield key, f"found {found_in_words(table)}, expected a table"
        elif backend not in card.backends:
            yield key, _no_case_of(backend, card)


def _no_case_of(backend: str, card: ModelCard) -> str:
    known = card.backends
    return f"found a value, but [backends] has no {backend}; expected one of {', '.join(known)}{suggestion(backend, known)}"


def _scaling_problems(card: ModelCard, extra_scalings: Collection[str]) -> Iterable[Problem]:
    preprocessing = card.preprocessing
    key = "preprocessing.scaling"
    known = [*BUILT_IN_SCALINGS, *extra_scalings]
    if preprocessing.scaling not in known:
        yield key, unknown_name(preprocessing.scaling, "scaling", known)
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
