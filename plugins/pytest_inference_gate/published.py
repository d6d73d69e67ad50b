"""Figures from the literature, to be shown beside a user's own result on the same board. They are means without spread, so they never gate.

``baselines/published/README.md`` describes the file and its sources, and says which board and which model card each name belongs to.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import GateError

if TYPE_CHECKING:
    from .cases import Case
    from .devices import DeviceIdentity

FILE = "figures.csv"
COLUMNS = (
    *("source", "device", "software", "model", "backend", "precision", "variant", "threads"),
    *("metric", "value", "unit", "note"),
)

# The unit of each metric in the file; what has None there is text.
UNITS: Mapping[str, str | None] = {
    "latency_mean": "ms",
    "latency_mean_best_build": "ms",
    "first_inference": "ms",
    "latency_per_frame": "ms",
    "throughput": "images/s",
    "artifact_size": "MB",
    "speedup_over_torch": "x",
    "speedup_over_tensorflow": "x",
    "top1": "",
    "outcome": None,
    "ops_on_accelerator": None,
    "graph_nodes": None,
}
# Those of which a result has its own, and how they are called beside it.
_SHOWN: Mapping[str, str] = {
    "latency_mean": "mean",
    "latency_mean_best_build": "mean of the best build",
    "first_inference": "first inference",
    "throughput": "",
    "artifact_size": "size",
    "outcome": "outcome",
}
# From the unit in the file to that of the result file.
_SI: Mapping[str, tuple[float, str]] = {"ms": (1e-3, "s"), "MB": (1e6, "bytes"), "images/s": (1.0, "samples/s"), "x": (1.0, "x")}

# What a board calls itself, in the device tree; a whole name, for a Jetson Nano is no Jetson Orin Nano and has not 2 GB.
BOARDS: Mapping[str, str] = {
    "Jetson Nano": r"(NVIDIA )?Jetson[ -]Nano( Developer Kit)?",
    "Jetson Nano 2GB": r"(NVIDIA )?Jetson[ -]Nano 2GB( Developer Kit)?",
    "Raspberry Pi 3 B+": r"Raspberry Pi 3 Model B Plus( Rev [0-9.]+)?",
}
_WITH_EDGE_TPU = re.compile(r"(?P<board>.+) and Edge TPU over USB (?P<usb>[23])")

# Cards whose model has the layers and the input of the published one.
_DETECTION = (
    "ssd_inception_v2_coco",
    "ssd_mobilenet_v1_0.75_depth_coco",
    "ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v1_fpn_coco",
    "ssd_mobilenet_v2_coco",
    "ssd_resnet_50_fpn_coco",
    "ssdlite_mobilenet_v2_coco",
    "ssdlite_mobilenet_v3_large_coco",
    "ssdlite_mobilenet_v3_small_coco",
)
CARDS: Mapping[str, tuple[str, ...]] = {
    "MobileNet v2 1.0": (
        "mobilenet_v2_1.0_224",
        "mobilenet_v2_224_seeded",
        "mobilenet_v2_keras",
        "flowers_mobilenet_v2",
        "flowers_mobilenet_v2_seeded",
    ),
    "Inception v3": ("inception_v3", "flowers_inception_v3", "flowers_inception_v3_seeded"),
    "DenseNet121": ("densenet121", "flowers_densenet121", "flowers_densenet121_seeded"),
    "ResNet50": ("resnet50", "resnet50_keras", "resnet50_seeded"),
    "MobileNet v1": ("mobilenet_v1_1.0_224",),
    **{name: (name,) for name in _DETECTION},
}


class PublishedError(GateError):
    """A file of published figures that cannot be read; names file, line and column."""


@dataclass(frozen=True)
class PublishedFigure:
    """One row of the file.

    ``value`` is a number in ``unit``, or a text where the metric has no number; what is not told is None or empty.
    """

    source: str
    device: str
    software: str
    model: str
    backend: str
    precision: str | None
    variant: str | None
    threads: int | None
    metric: str
    value: float | str
    unit: str
    note: str

    @property
    def as_published(self) -> str:
        """``54 ms``, ``37 images/s``, ``oom``."""
        value = f"{self.value:.10g}" if isinstance(self.value, float) else self.value
        return f"{value} {self.unit}".rstrip()

    @property
    def in_si(self) -> tuple[float, str] | None:
        """Value and unit as the result file has them: seconds, bytes, samples per second; ``None`` for a text."""
        if isinstance(self.value, str):
            return None
        factor, unit = _SI.get(self.unit, (1.0, self.unit))
        return self.value * factor, unit

    @property
    def case_device(self) -> str:
        """The marker of the cases that it can be compared with: those of its backend, where that has several."""
        if self.backend in ("edgetpu", "tflite"):
            return "edgetpu" if self.backend == "edgetpu" else "cpu"
        return "jetson" if self.device.startswith("Jetson") else "cpu"

    @property
    def sentence(self) -> str:
        """``54 ms mean, JetPack 4.2.2; TensorRT 5.1.6, detection-2019 (mean of 100 rounds after the first)``."""
        name = _SHOWN.get(self.metric, self.metric.replace("_", " "))
        parts = [f"{self.as_published} {name}".rstrip(), self.software, self.source]
        note = f" ({self.note})" if self.note else ""
        return ", ".join(part for part in parts if part) + note


def is_of_board(device: str, identity: DeviceIdentity) -> bool:
    """Whether the published name of a device means the board at hand, with what is plugged into it."""
    with_edge_tpu = _WITH_EDGE_TPU.fullmatch(device)
    if with_edge_tpu is not None:
        return is_of_board(with_edge_tpu["board"], identity) and identity.links.get("edgetpu") == f"usb{with_edge_tpu['usb']}"
    pattern = BOARDS.get(device)
    return pattern is not None and re.fullmatch(pattern, identity.board or "", re.IGNORECASE) is not None


def figures_for(figures: Sequence[PublishedFigure], identity: DeviceIdentity, case: Case) -> list[PublishedFigure]:
    """The figures of the same board, model, backend, precision, threads and variant; empty for another board.

    What was not told of a figure does not keep it from a case, but for its precision. They were all measured one picture at a time.
    """
    if case.batch != 1 or case.stream is not None:
        return []
    return [
        figure
        for figure in figures
        if figure.metric in _SHOWN
        and is_of_board(figure.device, identity)
        and case.model in CARDS.get(figure.model, ())
        and (figure.backend, figure.precision, figure.case_device) == (case.backend, case.precision, case.device)
        and figure.threads in (None, case.threads)
        and figure.variant in (None, case.variant)
    ]


def figures_file() -> Path:
    """The file that comes with the plugin: in the wheel beside this module, in a clone under ``baselines/``."""
    here = Path(__file__).resolve().parent
    inside = here / "published_figures" / FILE
    return inside if inside.is_file() else here.parent.parent / "baselines" / "published" / FILE


@functools.lru_cache(maxsize=4)
def read_figures(path: Path) -> tuple[PublishedFigure, ...]:
    """The rows of a file, in their order. Raises :class:`PublishedError` for one that cannot be read or that nobody could interpret."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, restkey="", strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise PublishedError(
                    f"{path}, line 1: found the columns {', '.join(reader.fieldnames or ()) or 'of an empty file'}, "
                    f"expected {', '.join(COLUMNS)}"
                )
            return tuple(_figure(row, f"{path}, line {reader.line_num}") for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PublishedError(f"the published figures in {path} cannot be read: {error}") from None


def _figure(row: Mapping[str, str | None], place: str) -> PublishedFigure:
    fields = {name: row[name] for name in COLUMNS}
    if "" in row or None in fields.values():
        raise PublishedError(
            f"{place}: found {len(row)} fields where {len(COLUMNS)} are expected; quote a text that holds a comma"
        )
    text = {name: (value or "").strip() for name, value in fields.items()}
    for name in ("source", "model", "backend", "metric", "value"):
        if not text[name]:
            raise PublishedError(f"{place}: the column {name} is empty")
    metric, unit = text["metric"], text["unit"]
    if metric not in UNITS:
        raise PublishedError(f"{place}: {metric!r} is no known metric; expected one of {', '.join(UNITS)}")
    if unit != (UNITS[metric] or ""):
        raise PublishedError(f"{place}: {metric} has the unit {unit!r}, expected {UNITS[metric] or 'none'}")
    threads = text["threads"]
    if threads and not re.fullmatch(r"[1-9][0-9]{0,3}", threads):
        raise PublishedError(f"{place}: {threads!r} is no number of threads")
    value: float | str = text["value"]
    if UNITS[metric] is not None:
        try:
            value = float(text["value"])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise PublishedError(f"{place}: {metric} is {text['value']!r}, expected a number of at least 0")
    return PublishedFigure(
        source=text["source"],
        device=text["device"],
        software=text["software"],
        model=text["model"],
        backend=text["backend"],
        precision=text["precision"] or None,
        variant=text["variant"] or None,
        threads=int(threads) if threads else None,
        metric=metric,
        value=value,
        unit=unit,
        note=text["note"],
    )
