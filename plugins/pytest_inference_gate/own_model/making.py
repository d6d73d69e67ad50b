"""From a model, and pictures where there are any, to the files of a suite."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent_process import AgentProcess, Limits
from ..agent_role import AgentRole, RunningAgents
from ..cards import Architecture, Checkpoint, Labels, ModelCard, Preprocessing, load_card
from ..outcome import StageFailed
from ..preprocessing import preprocess
from ..targets.interpreter import InterpreterTarget
from . import InitError
from .backend_choice import EXTRA_OF_FORMAT, EXTRAS, choose_backends, elsewhere, install_command
from .card_text import CardContent, card_text
from .chosen_pictures import ChosenPictures, choose_pictures
from .described_model import DescribedModel, understand
from .float_model import FloatModel
from .labelled_pictures import LabelledPictures, find_pictures
from .labellings import Labelling, named_labellings, numbered_labellings
from .model_file import ModelFile, recognise
from .preprocessing_candidates import Candidate, resize_candidates, scaling_candidates
from .preprocessing_search import DOUBTFUL, STEPS, Found, search
from .suite_files import Written, is_suite, suite_texts, write_suite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the user asked for. ``shape`` is the input's, without the batch; ``labels`` a file with one name a line."""

    model: Path
    data: Path | None = None
    into: Path = Path("gate")
    name: str | None = None
    labels: Path | None = None
    shape: tuple[int, ...] | None = None
    architecture: str | None = None
    evaluation: int = 500
    calibration: int = 100
    copy: bool = False
    force: bool = False


@dataclass(frozen=True)
class Made:
    """The suite, and what the user should know of it, in sentences."""

    folder: Path
    card: str
    written: Written
    findings: tuple[str, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Learned:
    """What was found out by running the model."""

    preprocessing: Candidate
    labelling: Labelling | None = None
    found: Found | None = None
    right: int | None = None
    doubts: dict[str, str] = field(default_factory=dict)


def make_suite(request: Request, progress: Progress) -> Made:
    """Find out what can be found out and write the suite. Raises a ``GateError`` with one sentence."""
    try:
        return _made(request, progress)
    except OSError as error:  # such as a full disk, here or where temporary files go
        raise InitError(f"no suite can be made of {request.model}: {error}") from error


def _made(request: Request, progress: Progress) -> Made:
    file = recognise(request.model)
    name = _card_name(request.name, file)
    data = None if request.data is None else find_pictures(request.data)
    if data is not None and not data.labelled and not data.is_npz:
        _refuse_inside(request.into, data.folder)
    running = RunningAgents()
    with tempfile.TemporaryDirectory(prefix="inference-gate-init-") as folder:
        scratch = Path(folder)
        role = AgentRole(InterpreterTarget(sys.executable), Limits(), scratch / "logs", running)
        try:
            progress("asking this interpreter what it can run")
            role.ask("runtime")
            with _agent(role, file) as reader:
                model = understand(file, _describe(reader, request, file, progress), request.shape)
                # What is quantized already is not calibrated any more.
                calibration = request.calibration if model.precision is None else 0
                pictures = None if data is None else choose_pictures(data, request.evaluation, calibration, progress)
                learned = _learn(role, reader, request, model, pictures, scratch, progress)
        finally:
            running.close()
        backends = choose_backends(model, role.probe, pictures is not None and bool(pictures.calibration))
        if not backends:
            raise InitError(_nothing_runs(file, role.probe))
        suite = _Suite(request, name, model, pictures, learned, backends)
        try:
            files = suite.files()
        except UnicodeEncodeError as error:
            told = error.object[error.object.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
            raise InitError(f"{told!a} has a name that is not UTF-8, as cards and CSVs are: rename it") from None
        _check_card(files[f"models/{name}.toml"], scratch)
    progress("")
    return Made(request.into, f"models/{name}.toml", write_suite(request.into, files, force=request.force), *suite.told())


def _refuse_inside(into: Path, pictures: Path) -> None:
    """All pictures below a folder without labels are evaluated on: those that a suite in it would hold, to calibrate with, too."""
    if into.resolve().is_relative_to(pictures.resolve()):
        raise InitError(
            f"{into} lies in the folder of the pictures, {pictures}, and would be taken for some of them: choose another --into"
        )


def _card_name(given: str | None, file: ModelFile) -> str:
    if given is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.]*", given):
            raise InitError(
                f"--name {given!r}: expected lower-case letters, digits, '_' and '.', beginning with a letter or a digit"
            )
        return given
    name = re.sub(r"[^a-z0-9_.]+", "_", file.stem.lower()).strip("_.")
    return name or "model"


# Asking


def _agent(role: AgentRole, file: ModelFile) -> AgentProcess:
    try:
        return role.start("reader")
    except StageFailed as failure:
        raise InitError(f"{file.path} cannot be read: {failure.outcome.message}") from None


def _describe(reader: AgentProcess, request: Request, file: ModelFile, progress: Progress) -> Mapping[str, Any]:
    architecture = None
    if request.architecture is not None:
        if file.format != "torch_weights":
            raise InitError(f"--architecture is for a state dict of PyTorch: {file.path.name} says itself what it is")
        if not request.architecture.startswith("torchvision.models."):
            raise InitError(
                f"--architecture {request.architecture}: expected one of torchvision, such as torchvision.models.resnet18"
            )
        architecture = {"function": request.architecture, "arguments": {}}
    arguments = {"format": file.format, "path": str(file.path.absolute()), "architecture": architecture}
    try:
        return reader.request("describe", arguments, progress=progress)
    except StageFailed as failure:
        message = failure.outcome.message
        if failure.outcome.kind == "unsupported" and "not installed" in message:
            message += f": {install_command(file.format)}"
        raise InitError(f"{file.path}: {message}" if file.path.name not in message else message) from None


def _nothing_runs(file: ModelFile, probe: Mapping[str, Any]) -> str:
    backend = next(name for name, extra in EXTRAS.items() if extra == EXTRA_OF_FORMAT[file.format])
    reason = probe["backends"].get(backend, {}).get("reason") or f"{backend} cannot run it"
    return f"no backend here can run {file.path.name} ({reason}): {install_command(file.format)}"


# Finding out by trying


def _learn(
    role: AgentRole,
    reader: AgentProcess,
    request: Request,
    model: DescribedModel,
    pictures: ChosenPictures | None,
    scratch: Path,
    progress: Progress,
) -> _Learned:
    if pictures is None or not pictures.source.labelled:
        maxima = (255.0,) if pictures is None else pictures.maxima
        likely = scaling_candidates(
            model, maxima, pictures is not None and pictures.all_are(model.input.height, model.input.width)
        )[0]
        learned = _Learned(likely)
        if pictures is not None:
            learned.doubts["preprocessing.scaling"] = "nothing was there to find it by: the pictures have no labels"
        if request.labels is not None and pictures is None:
            raise InitError("--labels names the classes of pictures: name those with --data")
        return learned
    labellings = _labellings(request, model, pictures.source)
    sizes = pictures.sizes
    base = _card_of(model)

    with _float_model(role, reader, base, scratch, progress) as floating:
        labels = pictures.labels

        def answers(candidate: Candidate, start: int, stop: int) -> NDArray[np.int64]:
            progress(f"trying {candidate.told()}: pictures {start + 1} to {stop}")
            return _answers(floating, base, candidate, pictures, start, stop)

        first = scaling_candidates(model, pictures.maxima, pictures.all_are(model.input.height, model.input.width))
        found = search(first, lambda best: resize_candidates(best, model, sizes), labellings, labels[: STEPS[-1]], answers)
        chosen = found.chosen
        learned = _Learned(chosen.candidate, chosen.labelling, found)
        _doubt(learned, found)
        if not found.better_than_chance:
            learned.preprocessing = first[0]
            learned.labelling = labellings[0]
        whole = []
        for start in range(0, len(labels), STEPS[0]):
            stop = min(start + STEPS[0], len(labels))
            progress(f"running the float model on {stop} of {len(labels)} pictures")
            whole.append(_answers(floating, base, learned.preprocessing, pictures, start, stop))
    import numpy as np

    every = np.concatenate(whole)
    assert learned.labelling is not None
    known = learned.labelling.learned(every, labels)
    if known is None or (known.outputs is not None and learned.labelling.outputs is None and not found.better_than_chance):
        raise InitError(
            f"the model has {model.classes} outputs and the pictures are of {len(set(labels.tolist()))} classes; which output stands for "
            "which class cannot be told from its answers: name a file with one name a line for each output with --labels"
        )
    if learned.labelling.outputs is None:
        learned.doubts["labels.count"] = known.note
    learned.labelling = known
    learned.right = int(known.right(every, labels).sum())
    return learned


def _float_model(role: AgentRole, reader: AgentProcess, card: ModelCard, scratch: Path, progress: Progress) -> FloatModel:
    try:
        return FloatModel(role, reader, card, scratch, progress)
    except StageFailed as failure:
        hint = f": {install_command(card.checkpoint.format)}" if failure.outcome.kind == "unsupported" else ""
        raise InitError(f"{card.checkpoint.file} does not run here: {failure.outcome.message}{hint}") from None


def _answers(
    floating: FloatModel, base: ModelCard, candidate: Candidate, pictures: ChosenPictures, start: int, stop: int
) -> NDArray[np.int64]:
    settings = Preprocessing(
        resize=candidate.resize,  # type: ignore[arg-type]
        interpolation=candidate.interpolation,  # type: ignore[arg-type]
        channel_order=candidate.channel_order,  # type: ignore[arg-type]
        scaling=candidate.scaling,
        maximum=candidate.maximum,
    )
    card = base.model_copy(update={"preprocessing": settings})
    try:
        return floating.answers(preprocess(pictures.images(start, stop), card))
    except StageFailed as failure:
        raise InitError(f"{card.checkpoint.file} cannot be run: {failure.outcome.message}") from None


def _labellings(request: Request, model: DescribedModel, pictures: LabelledPictures) -> list[Labelling]:
    names, source = model.labels, f"the labels inside {model.file.path.name}"
    if request.labels is not None:
        try:
            lines = request.labels.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InitError(f"--labels {request.labels} cannot be read as UTF-8 ({error})") from None
        names, source = tuple(line.strip() for line in lines if line.strip()), str(request.labels)
    if pictures.classes:
        return named_labellings(pictures.classes, model.classes, names, source, strict=request.labels is not None)
    return numbered_labellings([entry.label for entry in pictures.entries if entry.label is not None], model.classes)


def _doubt(learned: _Learned, found: Found) -> None:
    best = found.chosen
    if not found.better_than_chance or best.share < DOUBTFUL:
        learned.doubts["preprocessing.scaling"] = (
            f"the best of all that was tried reaches {best.right} of {best.count}: are scaling, channel_order, or the order of the classes "
            "others?"
        )
    for key in found.undecided:
        if key == "labels":
            learned.doubts["labels.count"] = "the pictures do not decide which output stands for which class"
            continue
        # What has seen fewer pictures had fallen behind before.
        rivals = [one for one in found.tried[1:] if one.count == best.count]
        others = [one for one in rivals if getattr(one.candidate, key) != getattr(best.candidate, key)]
        if others:
            told = ", ".join(
                dict.fromkeys(f"{_short(getattr(one.candidate, key))} ({one.right} of {one.count})" for one in others[:2])
            )
            learned.doubts[f"preprocessing.{key}"] = f"not clearly better than {told}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _card_of(model: DescribedModel) -> ModelCard:
    """A card in memory, for running the model before there is one on disk."""
    path = model.file.path.absolute()
    architecture = None if model.architecture is None else Architecture.model_validate(dict(model.architecture))
    return ModelCard(
        name="init",
        checkpoint=Checkpoint(format=model.file.format, file=path.name, architecture=architecture),  # type: ignore[arg-type]
        input=model.input,
        labels=Labels(count=model.classes),
        backends={"tensorflow": ["fp32"]},
        batches=[model.batch or 1],
        path=path.parent / path.name,
    )


# Writing down


class _Suite:
    """What goes into the files."""

    def __init__(
        self,
        request: Request,
        name: str,
        model: DescribedModel,
        pictures: ChosenPictures | None,
        learned: _Learned,
        backends: Mapping[str, Sequence[str]],
    ) -> None:
        self._request, self._name, self._model = request, name, model
        self._pictures, self._learned, self._backends = pictures, learned, backends
        self._models = request.into / "models"

    def files(self) -> dict[str, bytes]:
        """All files of the suite by their paths in it; of a suite that is there already, those of this model."""
        files: dict[str, bytes] = {}
        folder = f"models/{self._name}"
        checkpoint = self._place(self._model.file.path, files)
        labels, texts = self._labels(files, folder)
        evaluation, calibration = self._data(files, folder, texts)
        content = CardContent(
            name=self._name,
            model=self._model,
            checkpoint=checkpoint,
            preprocessing=self._learned.preprocessing,
            labels=labels,
            labels_note=self._learned.labelling.note if self._learned.labelling else "",
            evaluation=evaluation,
            calibration=calibration,
            backends=self._backends,
            elsewhere=elsewhere(self._model, calibration is not None),
            found=self._learned.found,
            right=self._learned.right,
            evaluated=len(self._pictures.evaluation) if self._pictures is not None else 0,
            doubts=self._learned.doubts,
        )
        files[f"models/{self._name}.toml"] = card_text(content).encode()
        if not is_suite(self._request.into):
            files.update(suite_texts(self._values()))
        return files

    def _values(self) -> dict[str, str]:
        extras = list(dict.fromkeys(EXTRAS[name] for name in self._backends))
        below = _below_repository(self._request.into)
        more = "\n    torchvision" if self._model.architecture is not None else ""
        return {"extras": ",".join(extras), "more": more, "directory": below or ".", "prefix": f"{below}/" if below else ""}

    def _place(self, path: Path, files: dict[str, bytes]) -> str:
        """The path of the model for the card: beside it, where it is copied, else as it lies."""
        if not self._request.copy:
            return _relative(path, self._models)
        if path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.is_file()):
                files[f"models/{self._name}/{path.name}/{file.relative_to(path).as_posix()}"] = file.read_bytes()
        else:
            files[f"models/{self._name}/{path.name}"] = path.read_bytes()
        return f"{self._name}/{path.name}"

    def _labels(self, files: dict[str, bytes], folder: str) -> tuple[dict[str, Any], Callable[[int], str]]:
        """The keys of ``[labels]`` beside the count, and how a CSV says a label."""
        labelling, pictures = self._learned.labelling, self._pictures
        if labelling is None or pictures is None or labelling.outputs is None:
            return {}, str
        classes, outputs = pictures.source.classes, labelling.outputs
        if not classes:
            return ({"offset": labelling.offset} if labelling.offset else {}), str
        names = list(self._model.labels or ()) if len(self._model.labels or ()) == self._model.classes else []
        names = names or [f"output {place}" for place in range(self._model.classes)]
        if len(classes) == self._model.classes - 1 and set(outputs.values()) == set(range(1, self._model.classes)):
            names[0] = "background"
        for label, place in outputs.items():
            names[place] = classes[label]
        if not _are_plain(names):
            return {}, lambda label: str(outputs[label])
        files[f"{folder}/labels.txt"] = "".join(f"{name}\n" for name in names).encode()
        return {"file": f"{self._name}/labels.txt"}, lambda label: classes[label]

    def _data(
        self, files: dict[str, bytes], folder: str, text_of: Callable[[int], str]
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The tables ``[evaluation]`` and ``[calibration]``, and the files that they name."""
        pictures = self._pictures
        if pictures is None:
            return None, None
        parts = {"evaluation": pictures.evaluation, "calibration": pictures.calibration}
        tables: dict[str, dict[str, Any] | None] = {}
        for part, entries in parts.items():
            if not entries:
                tables[part] = None
                continue
            if pictures.source.is_npz:
                files[f"{folder}/{part}.npz"] = pictures.packed(entries)
                tables[part] = {"file": f"{self._name}/{part}.npz"}
                continue
            # Pictures without labels are taken by folder: one folder for each part, so at least one of them holds copies.
            copied = self._request.copy or (not pictures.source.labelled and part == "calibration")
            place = f"{self._name}/{'pictures' if pictures.source.labelled else part}"
            if copied:
                for entry in entries:
                    files[f"models/{place}/{entry.place}"] = (pictures.source.folder / entry.place).read_bytes()
            table: dict[str, Any] = {"file": place if copied else _relative(pictures.source.folder, self._models)}
            if pictures.source.labelled:
                rows = [(entry.place, text_of(entry.label)) for entry in entries if entry.label is not None]
                files[f"{folder}/{part}.csv"] = _csv(rows)
                table["labels"] = f"{self._name}/{part}.csv"
            elif not copied:
                table["limit"] = len(entries)
            tables[part] = table
        return tables["evaluation"], tables["calibration"]

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """What was found, what should be checked, and what else is worth knowing."""
        model, pictures, learned = self._model, self._pictures, self._learned
        batch = "any batch" if model.batch is None else f"batch {model.batch}"
        findings = [
            f"model: {model.file.format}, {model.pictures_in_words} ({model.input.layout}), {batch}, {model.classes} classes"
        ]
        if pictures is not None:
            many = f"{len(pictures.evaluation)} to evaluate on"
            if model.precision is None:
                many += f", {len(pictures.calibration) or 'none'} to calibrate with"
            findings.append(f"pictures: {len(pictures.source.entries)}, of which {many}")
        if learned.found is not None and learned.found.better_than_chance and pictures is not None:
            findings.append(
                f"preprocessing: {learned.preprocessing.told()}: right on {learned.right} of {len(pictures.evaluation)} pictures"
            )
        else:
            findings.append(f"preprocessing: {learned.preprocessing.told()}, the most probable")
        if learned.labelling is not None and learned.labelling.note:
            findings.append(f"classes: {learned.labelling.note}")
        cases = sum(len(precisions) for precisions in self._backends.values())
        told = ", ".join(f"{name} ({', '.join(precisions)})" for name, precisions in self._backends.items())
        findings.append(f"cases: {cases}: {told}")
        doubts = [f"{key} in models/{self._name}.toml: {why}" for key, why in learned.doubts.items()]
        notes = []
        if pictures is None:
            notes.append(
                "without --data there is no accuracy, only agreement with the float model on seeded pictures, and no int8"
            )
        elif not pictures.source.labelled:
            notes.append("the pictures have no labels (sub-folders, or a CSV), so only agreement with the float model is judged")
        if pictures is not None and not pictures.calibration and model.precision is None:
            notes.append("there are too few pictures to calibrate with, so there is no int8: more pictures bring it")
        return tuple(findings), tuple(doubts), (*notes, *self._about_places())

    def _about_places(self) -> list[str]:
        """What others who get the suite would miss."""
        sentences = []
        into = self._request.into.resolve()
        below = _below_repository(into)
        if below and not is_suite(self._request.into):
            sentences.append(
                f"GitHub reads workflows at the top of a repository: move {below}/.github/workflows/inference-gate.yml there"
            )
        top = _repository(into) or into
        outside = [
            path for path in (self._model.file.path, self._request.data) if path and not path.resolve().is_relative_to(top)
        ]
        if outside and not self._request.copy:
            told = " and ".join(str(path) for path in outside)
            sentences.append(f"the suite refers to {told}, outside of {top}: --copy makes one that can be moved, and committed")
        return sentences


def _are_plain(names: Sequence[str]) -> bool:
    """Whether names can stand in a CSV and, one a line, in a file, and are found again there: numbers would be taken for indices."""

    def is_plain(name: str) -> bool:
        try:
            int(name)
        except ValueError:
            return bool(name) and name == name.strip() and name.isprintable()
        return False

    return len(set(names)) == len(names) and all(map(is_plain, names))


def _csv(rows: Sequence[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "label"))
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _relative(path: Path, folder: Path) -> str:
    """Relative, so that a suite can be moved together with what it is about."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _repository(folder: Path) -> Path | None:
    """The top of the git repository that the folder is in, or will be."""
    here = folder.resolve()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), None)


def _below_repository(folder: Path) -> str:
    """Where the folder lies in its git repository; empty at its top, and outside of any."""
    top = _repository(folder)
    below = "." if top is None else folder.resolve().relative_to(top).as_posix()
    return "" if below == "." else below


def _check_card(content: bytes, scratch: Path) -> None:
    """Read the card as pytest will, before anything is written."""
    path = scratch / "card.toml"
    path.write_bytes(content)
    load_card(path)
