"""Every ``--gate-*`` option, each with its ini twin, and the settings that they add up to.

An option's ini twin has the same name with underscores: ``--gate-models`` and ``gate_models``. The command line wins over the ini file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from . import verdict
from .report.tables import DEFAULT_TABLE, TABLES
from .streams.option import StreamOption
from .targets.bundle_address import PREFIX, BundleAddress
from .targets.ssh_address import SshAddress, board_names

DEFAULT_TOLERANCE = 0.05
DEFAULT_PAIRED_TOLERANCE = 0.03  # measuring in turns cancels most of what makes a stored baseline need more
DEFAULT_BUDGET = 120.0
DEFAULT_REPLICATES = 5
DEFAULT_TIMEOUTS = {"probe": 60.0, "convert": 1800.0, "load": 300.0, "predict": 1800.0, "measure": 600.0}
_LONGEST_TIMEOUT = 1_000_000  # seconds, eleven days: the system cannot wait for much more
RELAXABLE = tuple(sorted(str(name) for name in verdict.RELAXABLE))


class _BadValue(ValueError):
    """What is wrong with a value, as the end of a sentence: ``is not a percentage such as 5%``."""


def parse_share(text: str) -> float:
    """A share of 1 from ``5%``, ``2.5 %`` or ``0.05``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if match is None:
        raise _BadValue("is not a percentage such as 5% or a share such as 0.05")
    share = float(match[1]) / (100 if match[2] else 1)
    if not match[2] and share >= 1:
        # Who writes 5 means 5 %, not five times as slow.
        raise _BadValue("is not a percentage such as 5% or a share of less than 1 such as 0.05")
    if not 0 < share < 10:
        raise _BadValue("must be more than 0 and less than 1000%")
    return share


def parse_size(text: str) -> int:
    """Bytes from ``4GiB``, ``512 MiB`` or a plain number of bytes."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise _BadValue("is not a size such as 4GiB or 512MiB")
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if size < 1:
        raise _BadValue("must be at least one byte")
    return size


def parse_count(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text.strip()) < 1:
        raise _BadValue("is not a whole number from 1 to 999999999")
    return int(text.strip())


def parse_seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text.strip()):
        raise _BadValue("is not a whole number of at most 18 digits")
    return int(text.strip())


def parse_counts(text: str) -> tuple[int, ...]:
    return tuple(parse_count(part) for part in text.split(","))


def parse_seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text.strip()) or float(text.strip()) > 600:
        raise _BadValue("is not a number of seconds of at most 600")
    return float(text.strip())


def parse_budget(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text.strip()) or not 0 < float(text.strip()) <= _LONGEST_TIMEOUT:
        raise _BadValue(f"is not a number of seconds of more than 0 and at most {_LONGEST_TIMEOUT}")
    return float(text.strip())


def parse_duration(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text.strip()) or not 1 <= float(text.strip()) <= _LONGEST_TIMEOUT:
        raise _BadValue(f"is not a number of seconds of at least 1 and at most {_LONGEST_TIMEOUT}")
    return float(text.strip())


def parse_timeout(text: str) -> tuple[str, float]:
    stage, separator, seconds = text.partition("=")
    if not separator or stage not in DEFAULT_TIMEOUTS or not re.fullmatch(r"\d+(\.\d+)?", seconds):
        raise _BadValue(f"is not STAGE=SECONDS with a stage of {', '.join(DEFAULT_TIMEOUTS)}")
    if not 0 < float(seconds) <= _LONGEST_TIMEOUT:
        raise _BadValue(f"must be more than 0 and at most {_LONGEST_TIMEOUT} seconds")
    return stage, float(seconds)


def parse_relaxed(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in RELAXABLE:
            raise _BadValue(f"names {name!r}, but only {', '.join(RELAXABLE)} can be relaxed")
    return names


def parse_table(text: str) -> str:
    if text not in TABLES:
        raise _BadValue(f"is not a table, of: {', '.join(TABLES)}")
    return text


def parse_python(text: str) -> str:
    """The absolute path of an interpreter, from its path, from a name on ``PATH`` or from the folder of a virtual environment."""
    import shutil

    if "\0" in text:
        raise _BadValue("is not a path")
    folder = os.path.isdir(text)  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
    found = shutil.which(os.path.join(text, "bin", "python") if folder else text)  # noqa: PTH118
    if found is None:
        raise _BadValue("is not a Python interpreter that can be run")
    # Not resolved: a virtual environment's python is a link, and following it would leave the environment.
    return str(Path(found).absolute())


def parse_target(text: str) -> SshAddress | BundleAddress:
    try:
        if text.startswith(PREFIX):
            return BundleAddress.parse(text)
        if text == text.strip() and not text.startswith("ssh:"):
            raise ValueError(f"is neither ssh://user@board nor {PREFIX}FILE.results.zip")
        return SshAddress.parse(text)
    except ValueError as error:
        raise _BadValue(str(error)) from None


@dataclass(frozen=True)
class _Option:
    name: str  # --gate-<name>
    metavar: str | None  # None: a switch
    help: str
    parse: Callable[[str], Any] = str
    many: bool = False

    @property
    def destination(self) -> str:
        return "gate_" + self.name.replace("-", "_")


OPTIONS: tuple[_Option, ...] = (
    _Option("models", "DIR", "folder of model cards (repeatable); without it, the embedded models", many=True),
    _Option(
        "select",
        "PATTERN",
        "only the cases whose id or model matches (repeatable; * and ?); also selects cards that are not run by default",
        many=True,
    ),
    _Option("batches", "N,N", "batch sizes, instead of the cards'", parse_counts),
    _Option("threads", "N,N", "thread counts, instead of the cards'", parse_counts),
    _Option("convert-with", "PYTHON", "interpreter whose converters are used (default: this one)", parse_python),
    _Option("run-with", "PYTHON", "interpreter whose runtimes are measured (default: this one)", parse_python),
    _Option(
        "target",
        "URL",
        "board whose runtimes are measured: ssh://user@board:port, or bundle:FILE.results.zip for what a bundle has measured there "
        "(repeatable: each board is gated for itself)",
        parse_target,
        many=True,
    ),
    _Option(
        "against",
        "PYTHON",
        "measure in turns with the software stack of this interpreter, instead of comparing with stored baselines",
        parse_python,
    ),
    _Option(
        "against-models",
        "DIR",
        "measure in turns with the same cases of the model cards in this folder, such as an older quantization of them",
    ),
    _Option(
        "replicates",
        "N",
        f"fresh processes that are measured for each case before anything is said of it (default: {DEFAULT_REPLICATES})",
        parse_count,
    ),
    _Option(
        "budget",
        "SECONDS",
        f"how long a case that looks different may be measured in all, to be sure of it (default: {DEFAULT_BUDGET:g})",
        parse_budget,
    ),
    _Option(
        "rebuilds",
        "N",
        "times that a model is built and measured where its builder makes another one each time, such as TensorRT (default: 1)",
        parse_count,
    ),
    _Option("rounds", "N", "rounds measured in each replicate (default: 50 or more, for at least 0.2 s)", parse_count),
    _Option("warm-up", "SECONDS", "shortest warm-up of a replicate (default: 0.3)", parse_seconds),
    _Option(
        "stream",
        "SOURCE",
        "run every selected model on the frames of a video, a folder of pictures (DIR?frame_rate=30) or a camera (camera:0), besides; "
        "pace, overlap, resize and budget_frames_per_second may follow, as in scene.mp4?overlap=both&pace=frames",
    ),
    _Option(
        "sustained",
        "SECONDS",
        "let each stream go on for so long, and compare its last minute with its first",
        parse_duration,
    ),
    _Option(
        "tolerance",
        "SHARE",
        "how much slower than the baseline is still good, such as 5%% (default: the card's, else 5%%; 3%% in turns)",
        parse_share,
    ),
    _Option("relax", "VERDICTS", f"verdicts that shall not turn the run red, of: {', '.join(RELAXABLE)}", parse_relaxed),
    _Option("baselines", "DIR", "where baselines are kept, one folder a device (default: baselines/)"),
    _Option("store", "DIR", "where converted models are kept (default: the user's cache folder)"),
    _Option("json", "PATH", "write the result as JSON (schema: inference-gate/1)"),
    _Option("table", "NAME", f"table at the end of the run, of: {', '.join(TABLES)} (default: {DEFAULT_TABLE})", parse_table),
    _Option("mirror", "URL", "fetch checkpoints from here instead of from their own hosts"),
    _Option("offline", None, "fetch nothing: what is not there already is an error"),
    _Option("jobs", "N", "conversions that may run side by side (default: as cores and memory allow)", parse_count),
    _Option(
        "timeout",
        "STAGE=SECONDS",
        f"time limit of a stage (repeatable), of: {', '.join(DEFAULT_TIMEOUTS)}",
        parse_timeout,
        many=True,
    ),
    _Option("memory-limit", "SIZE", "most memory that one agent may take, such as 4GiB (default: no limit)", parse_size),
    _Option(
        "seed", "N", "seed of the order in which cases are measured (default: a new one each run, which is printed)", parse_seed
    ),
)


@dataclass(frozen=True)
class Settings:
    """What options and ini file say together. ``None`` where nothing was said."""

    models: tuple[Path, ...]
    select: tuple[str, ...]
    batches: tuple[int, ...] | None
    threads: tuple[int, ...] | None
    convert_with: str | None
    run_with: str | None
    targets: tuple[SshAddress | BundleAddress, ...]
    against: str | None
    against_models: Path | None
    replicates: int
    budget: float  # seconds for each case
    rebuilds: int
    rounds: int | None
    warm_up: float | None
    stream: StreamOption | None
    sustained: float | None  # seconds
    tolerance: float | None  # given on the command line: wins over markers and cards
    default_tolerance: float  # the ini file's, else 5 % or 3 %: where neither marker nor card says anything
    relax: frozenset[str]
    baselines: Path
    store: Path | None
    json: Path | None
    table: str
    mirror: str | None
    offline: bool
    jobs: int | None
    timeouts: dict[str, float]
    memory_limit: int | None
    seed: int | None

    @property
    def boards(self) -> list[tuple[str | None, SshAddress | BundleAddress]]:
        """The boards with the names that tell them apart in the ids of tests; the only one of a run needs none."""
        if len(self.targets) == 1:
            return [(None, self.targets[0])]
        return list(zip(board_names(self.targets), self.targets, strict=True))

    @property
    def takes_turns(self) -> bool:
        """Whether two stacks, or two sets of models, are measured in turns."""
        return self.against is not None or self.against_models is not None


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("inference-gate", "inference-gate: performance regression gate for neural networks")
    for option in OPTIONS:
        twin = f"ini: {option.destination}"
        if option.metavar is None:
            group.addoption(
                f"--gate-{option.name}",
                dest=option.destination,
                action="store_true",
                default=None,
                help=f"{option.help} ({twin})",
            )
            parser.addini(option.destination, option.help.replace("%%", "%"), type="bool", default=None)
            continue
        group.addoption(
            f"--gate-{option.name}",
            dest=option.destination,
            metavar=option.metavar,
            action="append" if option.many else "store",
            default=None,
            help=f"{option.help} ({twin})",
        )
        kind: Literal["args", "string"] = "args" if option.many else "string"
        parser.addini(option.destination, option.help.replace("%%", "%"), type=kind, default=None)


def _texts(config: pytest.Config, option: _Option) -> tuple[list[str], bool]:
    """The option's values as text, and whether they come from the command line."""
    given = config.getoption(option.destination)
    if given is not None:
        texts = list(given) if option.many else [given]
        if not all(text.strip() for text in texts):
            # An unset variable of the shell, most likely. Taken as a path it would be the folder one stands in.
            raise pytest.UsageError(f"--gate-{option.name}: the value is empty; give one or leave the option out")
        return texts, True
    stored = config.getini(option.destination)
    if not stored:
        return [], False
    texts = list(stored) if option.many else [stored]
    if not all(
        isinstance(text, str) for text in texts
    ):  # pyproject.toml has lists and numbers, and pytest hands them on as they are
        what = "a list of texts" if option.many else "one text, in quotation marks"
        raise pytest.UsageError(f"ini option {option.destination}: {stored!r} is not {what}")
    return texts, False


def _parsed(option: _Option, text: str, from_command_line: bool) -> Any:
    try:
        return option.parse(text)
    except _BadValue as error:
        where = f"--gate-{option.name}" if from_command_line else f"ini option {option.destination}"
        raise pytest.UsageError(f"{where}: {text!r} {error}") from None


def _values(config: pytest.Config, option: _Option) -> tuple[list[Any], bool]:
    texts, from_command_line = _texts(config, option)
    return [_parsed(option, text, from_command_line) for text in texts], from_command_line


def _path(config: pytest.Config, text: str, from_command_line: bool) -> Path:
    """Command-line paths are relative to where the user stands, ini paths to the ini file."""
    base = config.invocation_params.dir if from_command_line else (config.inipath.parent if config.inipath else config.rootpath)
    return (base / os.path.expanduser(text)).absolute()  # noqa: PTH111  (Path.expanduser raises where there is no such user)


def _offline(config: pytest.Config) -> bool | None:
    """What command line and ini file say of ``--gate-offline``; ``None`` where neither says anything."""
    if config.getoption("gate_offline") is not None:
        return True
    try:
        stored: bool | None = config.getini("gate_offline")
    except (TypeError, ValueError, pytest.UsageError):  # pytest's own, without the name of the key
        raise pytest.UsageError("ini option gate_offline: the value is neither true nor false") from None
    return stored


def is_configured(config: pytest.Config) -> bool:
    """Whether this project uses the gate at all: any ``--gate-*`` option or ``gate_*`` ini key, or the suite of the installed package.

    Only then does the plugin touch pytest-benchmark's storage, so that a project which merely has the plugin installed notices nothing.
    """
    if any(_texts(config, option)[0] for option in OPTIONS if option.metavar is not None) or _offline(config) is not None:
        return True
    return any("pytest_inference_gate" in str(argument) for argument in config.args)


def check_targets(settings: Settings) -> None:
    """Raise ``pytest.UsageError`` for what a run with a board cannot do."""
    targets = settings.targets
    places = [(target.host, target.port or 22) for target in targets]
    for target, place in zip(targets, places, strict=True):
        if places.count(place) > 1:
            raise pytest.UsageError(
                f"--gate-target names {target.host} twice, and two measurements on one board would disturb each other: name each board"
                " once, and compare two Pythons of a board by saving a baseline with the one"
            )
    if targets and settings.run_with is not None:
        raise pytest.UsageError(
            "--gate-run-with names a Python of this machine, but with --gate-target a board runs the models: leave it out, and name"
            f" the board's Python with --gate-target={targets[0].place}?python=PATH"
        )
    if any(isinstance(target, BundleAddress) for target in targets) and settings.rebuilds > 1:
        raise pytest.UsageError(
            "--gate-rebuilds builds models again, and the board of a bundle has built each once: leave it out, or reach the board by ssh"
        )
    if any(isinstance(target, BundleAddress) for target in targets) and settings.against_models is not None:
        raise pytest.UsageError(
            "--gate-against-models measures in turns, which nobody can ask of the board of a bundle any more: leave it out, or reach the"
            " board by ssh"
        )
    if targets and settings.against is not None:
        raise pytest.UsageError(
            "--gate-against measures in turns with another Python of this machine, which is not the board of --gate-target: save a"
            " baseline with the one stack of the board and compare the other one with it"
        )


def read_settings(config: pytest.Config) -> Settings:
    """All options with their ini twins. Raises ``pytest.UsageError`` for a value that cannot be used."""
    by_name = {option.name: option for option in OPTIONS if option.metavar is not None}

    def one(name: str) -> Any:
        values, _ = _values(config, by_name[name])
        return values[0] if values else None

    def many(name: str) -> Sequence[Any]:
        return _values(config, by_name[name])[0]

    def path(name: str) -> Path | None:
        texts, from_command_line = _texts(config, by_name[name])
        return _path(config, texts[0], from_command_line) if texts else None

    def python(name: str) -> str | None:
        texts, from_command_line = _texts(config, by_name[name])
        if not texts:
            return None
        is_path = os.sep in texts[0] or texts[0].startswith("~")  # else a name on PATH
        text = str(_path(config, texts[0], from_command_line)) if is_path else texts[0]
        return str(_parsed(by_name[name], text, from_command_line))

    def stream() -> StreamOption | None:
        texts, from_command_line = _texts(config, by_name["stream"])
        if not texts:
            return None
        try:
            return StreamOption.parse(texts[0], lambda text: _path(config, text, from_command_line))
        except ValueError as error:
            where = "--gate-stream" if from_command_line else "ini option gate_stream"
            raise pytest.UsageError(f"{where}: {texts[0]!r} {error}") from None

    models, from_command_line = _texts(config, by_name["models"])
    tolerance, tolerance_from_command_line = _values(config, by_name["tolerance"])
    against = python("against")
    against_models = path("against-models")
    default_tolerance = DEFAULT_TOLERANCE if against is None and against_models is None else DEFAULT_PAIRED_TOLERANCE
    return Settings(
        models=tuple(_path(config, text, from_command_line) for text in models),
        select=tuple(many("select")),
        batches=one("batches"),
        threads=one("threads"),
        convert_with=python("convert-with"),
        run_with=python("run-with"),
        targets=tuple(many("target")),
        against=against,
        against_models=against_models,
        replicates=one("replicates") or DEFAULT_REPLICATES,
        budget=one("budget") or DEFAULT_BUDGET,
        rebuilds=one("rebuilds") or 1,
        rounds=one("rounds"),
        warm_up=one("warm-up"),
        stream=stream(),
        sustained=one("sustained"),
        tolerance=tolerance[0] if tolerance and tolerance_from_command_line else None,
        default_tolerance=tolerance[0] if tolerance and not tolerance_from_command_line else default_tolerance,
        relax=frozenset(one("relax") or ()),
        baselines=path("baselines") or config.rootpath / "baselines",
        store=path("store"),
        json=path("json"),
        table=one("table") or DEFAULT_TABLE,
        mirror=one("mirror"),
        offline=bool(_offline(config)),
        jobs=one("jobs"),
        timeouts={**DEFAULT_TIMEOUTS, **dict(many("timeout"))},
        memory_limit=one("memory-limit"),
        seed=one("seed"),
    )
