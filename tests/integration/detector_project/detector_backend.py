"""A backend for the tests of the gate: a detector of grey rectangles in NumPy, in the agent's own process.

It finds the rectangle of each grey level, 100 and 200, in a dark picture, which is what these pictures hold: class 1 and class 2. Its
artifact is a small JSON file. With ``int8``, what stands under ``int8`` there comes on top: ``shift`` moves boxes down by so many pixels,
``blind_to`` are classes that it does not find, ``broken`` makes it give NaN for the first so many pictures of a file.
"""

import json
import os

import numpy

NAME = "rectangles"
PRECISIONS = ["fp32", "int8"]
LEVELS = {1: 100, 2: 200}
MODEL = "model.json"


def availability(packages):
    return {
        "available": True,
        "can_convert": True,
        "can_run": True,
        "precisions_convert": PRECISIONS,
        "precisions_run": PRECISIONS,
        "runtime": {"name": "numpy", "version": numpy.__version__},
        "converter": {"numpy": numpy.__version__},
        "source_formats": ["other"],
        "reason": "",
    }


def runtime():
    return {"name": "numpy", "version": numpy.__version__}


def convert(request, progress):
    assert request["task"] == "detection"
    with open(request["source"]["path"]) as stream:
        source = json.load(stream)
    with open(os.path.join(request["output_directory"], MODEL), "w") as stream:
        json.dump(dict(source, **source.get(request["precision"], {})), stream)
    return {"model": MODEL, "converter": {"numpy": numpy.__version__}, "details": {}}


class Runner:
    def __init__(self, model, precision, threads, batch, input):
        with open(model) as stream:
            self.settings = json.load(stream)
        if os.environ.get("RECTANGLES_SHIFT"):  # what stands for another environment sets it
            self.settings["shift"] = float(os.environ["RECTANGLES_SHIFT"])
        self.seen = 0
        self.inputs = [
            {"name": "x", "shape": [batch] + list(input["shape"]), "dtype": "float32", "scale": None, "zero_point": None}
        ]
        self.outputs = [
            {"name": name, "shape": [batch, 2], "dtype": "float32", "scale": None, "zero_point": None}
            for name in ("boxes", "classes", "scores", "count")
        ]

    def set_inputs(self, array):
        self.x = array[:, :, :, 0]

    def infer(self):
        batch, height, width = self.x.shape
        boxes, classes, scores = numpy.zeros((batch, 2, 4)), numpy.zeros((batch, 2)), numpy.zeros((batch, 2))
        counts = numpy.zeros(batch)
        for index, picture in enumerate(self.x):
            for number, level in LEVELS.items():
                rows, columns = numpy.nonzero(numpy.abs(picture - level) < 20)
                if len(rows) and number not in self.settings.get("blind_to", []):
                    place, shift = int(counts[index]), self.settings.get("shift", 0)
                    top, bottom = rows.min() + shift, rows.max() + 1 + shift
                    boxes[index, place] = [top / height, columns.min() / width, bottom / height, (columns.max() + 1) / width]
                    classes[index, place], scores[index, place] = number, 0.5 + min(len(rows), 100) / 250
                    counts[index] += 1
        if self.seen < self.settings.get("broken", 0):
            boxes[:] = numpy.nan
            counts[:] = 1
        self.seen += batch
        self.found = [array.astype(numpy.float32) for array in (boxes, classes, scores, counts)]

    def prepared(self):
        return self.infer

    def get_output(self):
        return self.found[0]

    def get_outputs(self):
        return self.found
