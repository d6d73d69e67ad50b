"""What is in the pictures of a detection set: COCO's instances, read and checked in full before anything is judged by them.

The format is that of T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, as https://cocodataset.org/#format-data
describes it: ``images``, ``annotations`` and ``categories``, boxes as x, y, width, height in pixels. Segmentations are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ..errors import EvaluationDataError

OVERHANG = 0.5
"""Pixels by which a box may reach over the edge of its picture: as much as rounding does."""


@dataclass(frozen=True)
class AnnotatedObject:
    """``box``: x, y, width, height in pixels of the picture as it is stored; ``crowd``: it stands for many objects (COCO's iscrowd)."""

    id: int
    category: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool


@dataclass(frozen=True)
class AnnotatedPicture:
    """``width`` and ``height`` in pixels; ``file`` is relative to the folder of the pictures, ``None`` where the file has no name."""

    id: int
    file: str | None
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]


@dataclass(frozen=True)
class Annotations:
    """``pictures`` are in the order of the file; ``categories`` are names by id, and ``classes`` the model's classes by category id."""

    path: Path
    pictures: tuple[AnnotatedPicture, ...]
    categories: Mapping[int, str]
    classes: Mapping[int, int]

    @property
    def objects(self) -> int:
        """How many there are to be found: crowds are not."""
        return sum(not one.crowd for picture in self.pictures for one in picture.objects)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


_Pixels = Annotated[float, Field(allow_inf_nan=False)]


class _Image(_Part):
    id: int
    width: PositiveInt
    height: PositiveInt
    file_name: Annotated[str, Field(min_length=1)] | None = None


class _Category(_Part):
    id: int
    name: Annotated[str, Field(min_length=1)]


class _Annotation(_Part):
    id: int
    image_id: int
    category_id: int
    bbox: Annotated[list[_Pixels], Field(min_length=4, max_length=4)]
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    iscrowd: Literal[0, 1] = 0


class _Instances(_Part):
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], Field(min_length=1)]


def read_annotations(
    path: Path, *, classes: int, names: Mapping[str, int] | None = None, names_file: Path | None = None, limit: int | None = None
) -> Annotations:
    """Read and check the COCO file at ``path``.

    ``classes`` is how many the model has. ``names`` (name to class, from ``names_file``) says which class a category is; without, the
    categories are the classes in the order of their ids, which need not follow each other. ``limit`` keeps the first so many images.

    Raises :class:`EvaluationDataError` with one sentence that names the file and the annotation, image or category at fault.
    """
    document = _read_json(path)
    try:
        instances = _Instances.model_validate(document)
    except ValidationError as error:
        raise EvaluationDataError(f"{path}: {_in_words(error, document)}.") from None
    for kind, ids in (
        ("image", [one.id for one in instances.images]),
        ("category", [one.id for one in instances.categories]),
        ("annotation", [one.id for one in instances.annotations]),
    ):
        if (twice := _twice(ids)) is not None:
            raise EvaluationDataError(f"{path}: two {_plural(kind)} have the id {twice}; give each one its own.")
    images = {one.id: one for one in instances.images}
    categories = {one.id: one.name for one in instances.categories}
    objects: dict[int, list[AnnotatedObject]] = {one.id: [] for one in instances.images}
    for annotation in instances.annotations:
        _check(path, annotation, images, categories)
        x, y, width, height = annotation.bbox
        area = width * height if annotation.area is None else annotation.area
        found = AnnotatedObject(annotation.id, annotation.category_id, (x, y, width, height), area, bool(annotation.iscrowd))
        objects[annotation.image_id].append(found)
    pictures = [
        AnnotatedPicture(one.id, one.file_name, one.width, one.height, tuple(objects[one.id])) for one in instances.images[:limit]
    ]
    return Annotations(path, tuple(pictures), categories, _classes(path, categories, classes, names, names_file))


def _read_json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EvaluationDataError(
            f"there are no annotations at {path}, which evaluation.annotations names; put them there or correct the card."
        ) from None
    except OSError as error:
        raise EvaluationDataError(f"the annotations {path} cannot be read ({error.strerror}); check the file.") from None
    except UnicodeDecodeError:
        raise EvaluationDataError(f"the annotations {path} are not UTF-8; save them as UTF-8.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationDataError(f"the annotations {path} are not JSON ({reason}); expected COCO's instances.") from None


def _in_words(error: ValidationError, document: Any) -> str:
    """The first of pydantic's findings, with the id of what it is about where that has one."""
    first = error.errors(include_url=False)[0]
    location = list(first["loc"])
    what, rest = "the file", location
    if len(location) >= 2 and location[0] in ("images", "annotations", "categories") and isinstance(location[1], int):
        kind = {"images": "image", "annotations": "annotation", "categories": "category"}[str(location[0])]
        one = document[location[0]][location[1]]
        number = one.get("id") if isinstance(one, dict) else None
        what = f"{kind} {number}" if isinstance(number, int) else f"{_plural(kind)}[{location[1]}]"
        rest = location[2:]
    where = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part) for place, part in enumerate(rest)
    )
    if first["type"] == "missing":
        return f"{what} has no {where}, which COCO's instances have; add it"
    message = first["msg"][0].lower() + first["msg"][1:]
    found = repr(first["input"])
    shown = found if len(found) <= 60 else found[:57] + "..."
    return f"{what} has {shown}{f' as its {where}' if where else ''}, which is not what COCO's instances have ({message})"


def _plural(kind: str) -> str:
    return "categories" if kind == "category" else f"{kind}s"


def _twice(ids: Sequence[int]) -> int | None:
    seen: set[int] = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None


def _check(path: Path, annotation: _Annotation, images: Mapping[int, _Image], categories: Mapping[int, str]) -> None:
    where = f"{path}: annotation {annotation.id}"
    image = images.get(annotation.image_id)
    if image is None:
        raise EvaluationDataError(f"{where} is of the image {annotation.image_id}, which is not among the images; correct it.")
    if annotation.category_id not in categories:
        raise EvaluationDataError(
            f"{where} is of the category {annotation.category_id}, which is not among the categories; correct it."
        )
    x, y, width, height = annotation.bbox
    shown = f"[{', '.join(f'{value:g}' for value in annotation.bbox)}] (x, y, width, height)"
    if width <= 0 or height <= 0:
        raise EvaluationDataError(f"{where} has the box {shown}, which has no size; correct it or remove the annotation.")
    if min(x, y) < -OVERHANG or x + width > image.width + OVERHANG or y + height > image.height + OVERHANG:
        raise EvaluationDataError(
            f"{where} has the box {shown}, which reaches out of image {image.id} of {image.width} x {image.height} pixels "
            "(width x height); correct it."
        )


def _classes(
    path: Path, categories: Mapping[int, str], classes: int, names: Mapping[str, int] | None, names_file: Path | None
) -> dict[int, int]:
    """The model's class of each category."""
    if names is None:
        if len(categories) != classes:
            raise EvaluationDataError(
                f"{path} has {len(categories)} categories, and labels.count is {classes}; correct one of the two, or name the model's "
                "classes in a labels.file."
            )
        return {category: number for number, category in enumerate(sorted(categories))}
    found: dict[int, int] = {}
    for category, name in categories.items():
        if name.strip() not in names:
            raise EvaluationDataError(f"{path}: category {category}, {name!r}, is not in {names_file}; correct one of the two.")
        found[category] = names[name.strip()]
        same = [other for other in found if other != category and found[other] == found[category]]
        if same:
            raise EvaluationDataError(f"{path}: the categories {same[0]} and {category} are both called {name!r}; rename one.")
    return found
