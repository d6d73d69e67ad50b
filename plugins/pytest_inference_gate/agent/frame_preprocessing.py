"""From a video's frame to the model's input, as the card's ``[preprocessing]`` says.

The plugin prepares pictures with Pillow; here the same steps are done with OpenCV and NumPy, in buffers that are made once. Where
nothing is resized both give the same numbers. A resize differs: Pillow's filters widen when they shrink a picture (antialiasing),
OpenCV's ``nearest``, ``bilinear`` and ``bicubic`` do not, and ``area`` is the mean over the covered pixels in both. A frame's
values of 0 to 255 are stretched to the card's ``maximum``.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

import numpy

from .failures import Unsupported
from .frame_source import SourceError
from .quantization import quantize

# Mean and standard deviation of ImageNet's pixels, as in the plugin's preprocessing: of 0..1, red green blue; of 0..255, blue green red.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
CROP_SHARE = 0.875

Step = Callable[[Any], None]


def scaling_steps(name, maximum, channel_order):
    # type: (str, float, str) -> List[Tuple[Any, Any]]
    """The scaling as operations with a number or three, in the order and the type (float32) of the plugin's own."""
    largest = numpy.float32(maximum)
    stretch = [] if maximum == 255 else [(numpy.multiply, numpy.float32(maximum / 255.0))]
    if name == "none":
        return stretch
    if name == "zero_to_one":
        return stretch + [(numpy.divide, largest)]
    if name == "minus_one_to_one":
        return stretch + [(numpy.divide, largest / numpy.float32(2)), (numpy.subtract, numpy.float32(1))]
    if name == "imagenet_mean_std":
        order = slice(None, None, -1) if channel_order == "bgr" else slice(None)
        mean = numpy.array(IMAGENET_MEAN, numpy.float32)[order]
        deviation = numpy.array(IMAGENET_STANDARD_DEVIATION, numpy.float32)[order]
        return stretch + [(numpy.divide, largest), (numpy.subtract, mean), (numpy.divide, deviation)]
    if name == "imagenet_mean_bgr":
        factor = numpy.float32(255) / largest
        return (
            stretch
            + ([] if factor == 1 else [(numpy.multiply, factor)])
            + [(numpy.subtract, numpy.array(IMAGENET_MEAN_BGR, numpy.float32))]
        )
    raise Unsupported("a stream knows no scaling %r: a hook's scaling runs in the pytest process alone" % name)


class FramePreprocessor(object):
    """Writes frames into arrays of the shape (1,) + the card's input shape.

    ``dtype`` is that of the arrays: float32, or the 8-bit type of a tensor with its ``scale`` and ``zero_point`` (None: none),
    for which each value is looked up in a table of 256.
    """

    def __init__(self, cv2, preprocessing, input, dtype="float32", scale=None, zero_point=None):
        # type: (Any, Dict[str, Any], Dict[str, Any], str, Optional[float], Optional[int]) -> None
        self._cv2 = cv2
        self._preprocessing = preprocessing
        self._nchw = input["layout"] == "nchw"
        shape = tuple(int(size) for size in input["shape"])
        self._height, self._width = shape[1:] if self._nchw else shape[:2]
        self._channels = shape[0] if self._nchw else shape[2]
        self.shape = (1,) + shape
        self.dtype = numpy.dtype(dtype)
        self._steps = scaling_steps(preprocessing["scaling"], float(preprocessing["maximum"]), preprocessing["channel_order"])
        self._table = None  # type: Any
        self._moved_by = None  # type: Optional[int]
        if self.dtype != numpy.float32:
            self._table, self._moved_by = self._quantized_table(scale or 0.0, zero_point or 0)
        self._operations = [(operation, self._spread(operand)) for operation, operand in self._steps]
        self._fitted = None  # type: Optional[Tuple[int, int]]
        self._resized = None  # type: Any
        self._size = (0, 0)
        self._crop = None  # type: Optional[Tuple[slice, slice]]
        self._interpolation = 0
        size = (self._height, self._width)
        self._coloured = numpy.empty(size + (self._channels,), numpy.uint8)
        # Channels apart are copied one by one, from planes in the type that they then have.
        self._planes = [numpy.empty(size, self.dtype if self._table is not None else numpy.uint8) for _ in range(self._channels)]
        if not self._nchw or self._channels == 1:
            self._planes = []

    def _spread(self, operand):
        # type: (Any) -> Any
        """One number for each channel, laid out so that NumPy goes over long rows and not over three values at a time."""
        if numpy.ndim(operand) == 0:
            return operand
        if self._nchw:
            return numpy.ascontiguousarray(operand.reshape(1, self._channels, 1, 1))
        return numpy.ascontiguousarray(numpy.tile(operand, (1, self._height, self._width, 1)))

    def _quantized_table(self, scale, zero_point):
        # type: (float, int) -> Tuple[Any, Optional[int]]
        """The bytes that each of a frame's values becomes, by the same arithmetic as a whole array would: (256,), or (1, 256,
        channels) where the channels differ; and by how much all are moved, modulo 256, where that is all that happens."""
        values = numpy.repeat(numpy.arange(256, dtype=numpy.float32)[:, None], self._channels, axis=1)
        for operation, operand in self._steps:
            values = operation(values, operand)
        table = numpy.ascontiguousarray(quantize(values, self.dtype, scale, zero_point)).view(numpy.uint8)
        if not (table == table[:, :1]).all():
            return table[None], None
        single = numpy.ascontiguousarray(table[:, 0])
        moved = single - numpy.arange(256, dtype=numpy.uint8)  # modulo 256
        return single, int(moved[0]) if (moved == moved[0]).all() else None

    def _fit(self, height, width):
        # type: (int, int) -> None
        """Choose sizes for frames of this size."""
        resize = self._preprocessing["resize"]
        self._fitted, self._crop, self._resized = (height, width), None, None
        if resize == "none":
            if (height, width) != (self._height, self._width):
                raise SourceError(
                    "a frame is %d x %d pixels (height x width), the model takes %d x %d; set resize in the card's [stream], or "
                    "--gate-stream=SOURCE?resize=resize" % (height, width, self._height, self._width)
                )
            return
        new_height, new_width = self._height, self._width
        if resize == "resize_and_crop":
            shorter = self._preprocessing.get("resize_shorter_side") or int(round(max(self._height, self._width) / CROP_SHARE))
            if height <= width:
                new_height, new_width = shorter, int(shorter * width / height)
            else:
                new_height, new_width = int(shorter * height / width), shorter
            top, left = int(round((new_height - self._height) / 2)), int(round((new_width - self._width) / 2))
            self._crop = (slice(top, top + self._height), slice(left, left + self._width))
        if (height, width) != (new_height, new_width):
            self._resized = numpy.empty((new_height, new_width, 3), numpy.uint8)
            self._size = (new_width, new_height)
            self._interpolation = self._filter()

    def _filter(self):
        # type: () -> int
        cv2 = self._cv2
        return int(
            {
                # The exact one takes the pixel below the centre, as Pillow does; releases before 4.5 have only the other.
                "nearest": getattr(cv2, "INTER_NEAREST_EXACT", cv2.INTER_NEAREST),
                "bilinear": cv2.INTER_LINEAR,
                "bicubic": cv2.INTER_CUBIC,
                "area": cv2.INTER_AREA,
            }[self._preprocessing["interpolation"]]
        )

    def write(self, frame, target):
        # type: (Any, Any) -> None
        """Preprocess ``frame`` into ``target``, an array of ``shape`` and ``dtype``; nothing of it is held on to."""
        cv2 = self._cv2
        if frame.shape[:2] != self._fitted:
            self._fit(*frame.shape[:2])
        if self._resized is not None:
            frame = cv2.resize(frame, self._size, dst=self._resized, interpolation=self._interpolation)
        if self._crop is not None:
            frame = frame[self._crop]
        order = self._preprocessing["channel_order"]
        if order == "rgb":
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=self._coloured)
        elif order == "grayscale":
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY, dst=self._coloured).reshape(self._height, self._width, 1)
        if self._table is not None:
            frame = self._looked_up(frame)
        if self._planes:
            cv2.split(frame, self._planes)
            for channel, plane in enumerate(self._planes):
                numpy.copyto(target[0, channel], plane)
        else:
            numpy.copyto(target[0], frame.reshape(self.shape[1:]))
        if self._table is None:
            for operation, operand in self._operations:
                operation(target, operand, out=target)

    def _looked_up(self, frame):
        # type: (Any) -> Any
        """What the table makes of each value. Most models' table only moves them all, which is done at a tenth of the cost."""
        if self._moved_by == 0:
            return frame.view(self.dtype)
        if self._moved_by is not None:
            return numpy.add(frame, numpy.uint8(self._moved_by), out=self._coloured).view(self.dtype)  # modulo 256
        found = self._cv2.LUT(frame, self._table, dst=self._coloured)
        return found.reshape(self._height, self._width, self._channels).view(self.dtype)
