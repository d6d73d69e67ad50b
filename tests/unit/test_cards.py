"""Model cards: what is accepted, and that whatever is not is said in one line for each problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.backends import BACKENDS, BackendInfo
from pytest_inference_gate.cards import DEFAULT_EVALUATION_SEED, ModelCard, is_calibrated, load_card, load_cards
from pytest_inference_gate.errors import CardError
from pytest_inference_gate.preparation import reference_backend

GOOD = {
    "name": '"digits"',
    "checkpoint": '{ format = "keras", file = "digits.keras" }',
    "input": "{ shape = [8, 8, 1] }",
    "preprocessing": '{ channel_order = "grayscale", scaling = "zero_to_one", maximum = 16.0 }',
    "labels": "{ count = 10 }",
    "evaluation": '{ file = "evaluation.npz", top1 = 0.95 }',
    "calibration": '{ file = "calibration.npz" }',
    "backends": '{ tflite = ["fp32", "int8"], onnxruntime = ["fp32"] }',
}
COLOUR = {"input": "{ shape = [224, 224, 3] }", "preprocessing": '{ scaling = "zero_to_one" }'}
SHA = "0" * 63 + "1"


def card_text(**changes: str | None) -> str:
    """A good card with some keys replaced (None: left out)."""
    document = {**GOOD, **changes}
    return "".join(f"{key} = {value}\n" for key, value in document.items() if value is not None)


def write(folder: Path, text: str, name: str = "card.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, **changes: str | None) -> ModelCard:
    return load_card(write(folder, card_text(**changes)))


def message(folder: Path, **changes: str | None) -> str:
    with pytest.raises(CardError) as caught:
        load(folder, **changes)
    return str(caught.value)


def test_a_model_that_is_quantized_already_needs_no_calibration_set(tmp_path: Path) -> None:
    compiled = '{ format = "tflite", file = "digits_edgetpu.tflite" }'
    card = load(tmp_path, checkpoint=compiled, calibration=None, backends='{ edgetpu = ["int8"] }')
    assert card.backends == {"edgetpu": ["int8"]}
    assert "found 'int8' but no calibration set" in message(tmp_path, calibration=None, backends='{ edgetpu = ["int8"] }')


def test_a_graph_that_has_its_ranges_needs_no_calibration_set(tmp_path: Path) -> None:
    """Quantization-aware training; what else of the card is quantized is calibrated as ever."""
    options = "{ tftrt = { use_calibration = false } }"
    card = load(tmp_path, calibration=None, backends='{ tftrt = ["int8"] }', options=options)
    assert not is_calibrated(card, "tftrt", "int8")
    told = message(tmp_path, calibration=None, backends='{ tftrt = ["int8"], tensorrt = ["int8"] }', options=options)
    assert "backends.tensorrt[0]: found 'int8' but no calibration set" in told
    assert "backends.tftrt" not in told


def problems_of(path: Path) -> str:
    """What is said of the card; nothing of a good one. Any other exception is a failure of the test."""
    try:
        load_card(path)
    except CardError as error:
        return str(error)
    return ""


def test_what_a_card_demands_of_an_accelerator(tmp_path: Path) -> None:
    card = load(tmp_path, coverage="{ tflite = { minimum_share = 0.95, maximum_off_chip_bytes = 0 } }")
    assert (card.coverage["tflite"].minimum_share, card.coverage["tflite"].maximum_off_chip_bytes) == (0.95, 0)
    for table, words in (
        (
            "{ edgetpu = { minimum_share = 0.9 } }",
            "coverage.edgetpu: found 'edgetpu' (a string), which is no known backend of this card",
        ),
        ("{ tflite = {} }", "coverage.tflite: found an empty table, expected minimum_share"),
        ("{ tflite = { minimum_share = 95 } }", "coverage.tflite.minimum_share: found 95 (an integer), expected at most 1"),
        ("{ tflite = { minimum_share = 0.0 } }", "expected more than 0"),
        ("{ tflite = { maximum_off_chip_bytes = -1 } }", "expected at least 0"),
        ("{ tflite = { share = 1.0 } }", "coverage.tflite.share: found a key that is not known here"),
    ):
        assert words in message(tmp_path, coverage=table)


def test_a_good_card_is_read_with_its_defaults(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert (card.name, card.directory) == ("digits", tmp_path)
    assert (card.input.height, card.input.width, card.input.channels) == (8, 8, 1)
    assert card.batches == [1] and card.threads == [1] and card.default
    assert card.evaluation_source is card.evaluation


def test_height_width_and_channels_follow_the_layout(tmp_path: Path) -> None:
    card = load(tmp_path, input='{ shape = [3, 20, 30], layout = "nchw" }', preprocessing=None)
    assert (card.input.height, card.input.width, card.input.channels) == (20, 30, 3)


TORCHVISION = {
    "checkpoint": '{ format = "seeded", seed = 1, architecture = { function = "torchvision.models.vgg11" } }',
    "input": '{ shape = [1, 8, 8], layout = "nchw" }',
    "backends": '{ torch = ["fp32"] }',
}


def test_an_architecture_of_torchvision_has_its_own_reference(tmp_path: Path) -> None:
    architecture = '{ function = "torchvision.models.mobilenet_v2", arguments = { num_classes = 10 } }'
    changes = {
        "input": '{ shape = [3, 20, 30], layout = "nchw" }',
        "preprocessing": None,
        "backends": '{ torch = ["fp32", "fp16"] }',
    }
    for checkpoint in ('format = "seeded", seed = 1', 'format = "torch_weights", file = "w.pth"'):
        card = load(tmp_path, checkpoint=f"{{ {checkpoint}, architecture = {architecture} }}", **changes)
        assert card.checkpoint.architecture is not None and card.checkpoint.architecture.is_of_torchvision
        assert reference_backend(card) == "torch"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"labels": None}, ["card.toml: labels: found nothing", "required"]),
        ({"checkpoint": "{ file = 'a' }"}, ["checkpoint.format: found nothing", "saved_model"]),
        ({"batches": '["1"]'}, ["batches[0]: found '1' (a string), expected an integer"]),
        ({"batches": "[0]"}, ["batches[0]: found 0 (an integer), expected more than 0"]),
        ({"batches": "[]"}, ["batches: found nothing in it"]),
        ({"threads": "[2, 2]"}, ["threads[1]: found 2 a second time"]),
        ({"default": "1"}, ["default: found 1 (an integer), expected true or false"]),
        ({"input": "[8, 8, 1]"}, ["input: found [8, 8, 1] (an array), expected a table"]),
        ({"input": "{ shape = 8 }"}, ["input.shape: found 8 (an integer), expected an array"]),
        ({"input": "{ shape = [8, 8.5, 1] }"}, ["input.shape[1]: found 8.5 (a float), expected an integer"]),
        ({"input": "{ shape = [8, true, 1] }"}, ["input.shape[1]: found True (a boolean), expected an integer"]),
        ({"input": "{ shape = [64] }"}, ["input.shape: found [64], expected three numbers", "[height, width, channels]"]),
        ({"input": "{ shape = [8, 8, 3] }"}, ["input.shape: found 3 channels", "expected 1"]),
        ({"name": '"Digits-CNN"'}, ["name: found 'Digits-CNN' (a string), expected lower-case letters"]),
        ({"path": '"x"'}, ["path: found a key that is not known here"]),
        ({"evaluaton": "{}"}, ["evaluaton: found a key that is not known here", "did you mean 'evaluation'?"]),
        ({"evaluation": '{ file = "e.npz", top_1 = 0.9 }'}, ["evaluation.top_1:", "did you mean 'top1'?"]),
        ({"evaluation": '{ file = "e.npz", top1 = 95 }'}, ["evaluation.top1: found 95 (an integer), expected at most 1"]),
        ({"tolerance": "{ by_precision = { int8 = { latncy = 0.1 } } }"}, ["tolerance.by_precision.int8.latncy", "'latency'"]),
        (
            {"tolerance": "{ by_precision = { int9 = {} } }"},
            ["tolerance.by_precision.int9: found 'int9'", "did you mean 'int8'?"],
        ),
        ({"checkpoint": '{ format = "kears", file = "a" }'}, ["checkpoint.format: found 'kears'", "did you mean 'keras'?"]),
        ({"checkpoint": '{ format = "keras" }'}, ["checkpoint: found neither file nor url"]),
        ({"checkpoint": '{ format = "keras", file = "" }'}, ["checkpoint.file: found an empty string"]),
        (
            {"checkpoint": f'{{ format = "keras", url = "https://h/a", sha256 = "{SHA[1:]}" }}'},
            ["checkpoint.sha256", "64 lower-case"],
        ),
        (
            {"checkpoint": '{ format = "keras", file = "a", url = "https://h/a" }'},
            ["checkpoint: found file and url, expected only one"],
        ),
        (
            {"checkpoint": '{ format = "keras", url = "file:///etc/passwd" }'},
            ["checkpoint.url: found 'file:///etc/passwd'", "https://"],
        ),
        ({"checkpoint": '{ format = "keras", url = "https://me:secret@h/a" }'}, ["checkpoint.url", ".netrc"]),
        ({"checkpoint": '{ format = "keras", url = "https://h:port/a" }'}, ["checkpoint.url", "expected a URL"]),
        (
            {"checkpoint": '{ format = "keras_weights", file = "a.h5" }'},
            ["checkpoint.architecture: found nothing", "needs the arch"],
        ),
        ({"checkpoint": '{ format = "seeded", seed = 1 }'}, ["checkpoint.architecture: found nothing"]),
        ({"checkpoint": '{ format = "keras", file = "a", seed = 1 }'}, ["checkpoint.seed: found a value, expected none"]),
        (
            {
                "checkpoint": '{ format = "seeded", seed = 1, architecture = { function = "keras.Sequential", arguments = { units = 4 } } }'
            },
            ["checkpoint.architecture.arguments: found other arguments, expected layers alone"],
        ),
        (
            {
                "checkpoint": '{ format = "seeded", seed = 1, architecture = { function = "keras.Sequential", '
                "arguments = { layers = [{ units = 4 }] } } }"
            },
            ["checkpoint.architecture.arguments.layers[0]: found a table, expected a table such as { layer ="],
        ),
        (
            {"checkpoint": '{ format = "onnx", file = "a", architecture = { function = "keras.applications.VGG16" } }'},
            ["checkpoint.architecture: found a value, expected none with format 'onnx'"],
        ),
        (
            {"checkpoint": '{ format = "keras_weights", file = "a", architecture = { function = "os.system" } }'},
            ["checkpoint.architecture.function: found 'os.system' (a string), expected the dotted name", "keras.applications"],
        ),
        (
            {"checkpoint": '{ format = "torch_weights", file = "a.pth" }'},
            ["checkpoint.architecture: found nothing", "torchvision.models.mobilenet_v2"],
        ),
        (
            {"checkpoint": '{ format = "torch_weights", file = "a", architecture = { function = "keras.applications.VGG16" } }'},
            ["checkpoint.architecture.function: found 'keras.applications.VGG16'", "expected one in torchvision.models"],
        ),
        (
            {"checkpoint": '{ format = "keras_weights", file = "a", architecture = { function = "torchvision.models.vgg11" } }'},
            ["checkpoint.architecture.function: found 'torchvision.models.vgg11'", "expected one in keras.applications"],
        ),
        (
            {
                **TORCHVISION,
                "checkpoint": TORCHVISION["checkpoint"].replace('vgg11"', 'vgg11", arguments = { pretrained = true }'),
            },
            ["checkpoint.architecture.arguments.pretrained: found a value, expected none"],
        ),
        ({**TORCHVISION, "input": "{ shape = [8, 8, 1] }"}, ["input.layout: found 'nhwc' (a string), expected 'nchw'"]),
        (
            {**TORCHVISION, "backends": '{ torch = ["fp32"], tflite = ["fp32"] }'},
            [
                "backends.tflite: found a backend that takes no architecture of torchvision",
                "torch, torch2trt, onnxruntime, tensorrt",
            ],
        ),
        (
            {"checkpoint": '{ format = "frozen_graph", file = "a", outputs = ["o:0"] }'},
            ["checkpoint.inputs: found nothing", "Placeholder"],
        ),
        ({"checkpoint": '{ format = "tf1_checkpoint", file = "a", inputs = ["i:0"] }'}, ["checkpoint.outputs: found nothing"]),
        (
            {"checkpoint": '{ format = "tflite", file = "a", inputs = ["i:0"] }'},
            ["checkpoint.inputs: found a value, expected none"],
        ),
        (
            {"checkpoint": '{ format = "saved_model", file = "a", allow_lambda = true }'},
            ["checkpoint.allow_lambda: found true with format 'saved_model', expected none"],
        ),
        (
            {"variants": '{ tflite = ["nms_cpu"] }'},
            ["variants.tflite: found nms_cpu, expected none: only tensorflow and tftrt run a graph"],
        ),
        ({"variants": '{ tftrt = ["nms_cpu"] }'}, ["variants.tftrt: found a value, but [backends] has no tftrt"]),
        (
            {"variants": '{ tensorflow = ["nms_cpu", "nms_cpu"] }', "backends": '{ tensorflow = ["fp32"] }'},
            ["variants.tensorflow[1]: found 'nms_cpu' a second time"],
        ),
        (
            {
                "variants": '{ tensorflow = ["nms_gpu"] }',
                "backends": '{ tensorflow = ["fp32"] }',
                "devices": '{ tensorflow = ["cpu"] }',
            },
            ["variants.tensorflow: found 'nms_gpu', but all cases of tensorflow are for cpu"],
        ),
        (
            {"variants": '{ tensorflow = ["nms"] }', "backends": '{ tensorflow = ["fp32"] }'},
            ["variants.tensorflow[0]: found 'nms' (a string), expected one of as_is, nms_cpu, nms_gpu"],
        ),
        ({"backends": "{}"}, ["backends: found nothing in it"]),
        (
            {"backends": "{ tflight = ['fp32'] }"},
            ["backends.tflight: found 'tflight'", "tensorflow, tflite", "did you mean 'tflite'?"],
        ),
        ({"backends": "{ tflite = [] }"}, ["backends.tflite: found an empty array"]),
        (
            {"backends": "{ onnxruntime = ['fp16'] }"},
            ["backends.onnxruntime[0]: found 'fp16'", "no known precision of onnxruntime", "fp32, int8"],
        ),
        ({"backends": "{ tflite = ['fp32', 'fp32'] }"}, ["backends.tflite[1]: found 'fp32' a second time"]),
        (
            {"backends": "{ tensorrt = ['full_int8'] }"},
            [
                "backends.tensorrt[0]: found 'full_int8'",
                "no known precision of tensorrt",
                "fp32, fp16, int8",
                "did you mean 'int8'?",
            ],
        ),
        (
            {"devices": "{ tflight = ['cpu'] }"},
            ["devices.tflight: found a value, but [backends] has no tflight", "'tflite'?"],
        ),
        ({"devices": "{ tflite = [] }"}, ["devices.tflite: found nothing in it"]),
        ({"devices": "{ tflite = 'cpu' }"}, ["devices.tflite: found 'cpu' (a string), expected an array"]),
        ({"devices": "{ tflite = ['gpu'] }"}, ["devices.tflite[0]: found 'gpu'", "no known device of tflite", "one of cpu"]),
        ({"devices": "{ tflite = ['cpu', 'cpu'] }"}, ["devices.tflite[1]: found 'cpu' a second time, expected each device once"]),
        (
            {"backends": "{ torch = ['fp32', 'fp16'] }", "devices": "{ torch = ['cpu'] }"},
            ["devices.torch: found cpu, where torch has no fp16; expected jetson or cuda too, or no fp16 in backends.torch"],
        ),
        ({"options": "1"}, ["options: found 1 (an integer), expected a table"]),
        (
            {"options": "{ tensorrrt = {} }"},
            ["options.tensorrrt: found 'tensorrrt'", "no known backend", "did you mean 'tensorrt'?"],
        ),
        ({"options": "{ tflite = { a = 1 } }"}, ["options.tflite.a: found a key that is not known here", "per_channel_dense"]),
        (
            {"backends": "{ onnxruntime = ['fp32'] }", "options": "{ onnxruntime = { a = 1 } }"},
            ["options.onnxruntime: found options, expected none: the backend onnxruntime has none"],
        ),
        (
            {"options": "{ tensorrt = { dla_core = 0 } }"},
            ["options.tensorrt: found a value, but [backends] has no tensorrt; expected one of tflite, onnxruntime"],
        ),
        ({"options": "{ tensorrt = 1 }"}, ["options.tensorrt: found 1 (an integer), expected a table"]),
        (
            {"options": "{ tensorrt = { workspace = 1 } }"},
            ["options.tensorrt.workspace: found a key that is not known here", "did you mean 'workspace_bytes'?"],
        ),
        (
            {"options": "{ tensorrt = { workspace_bytes = '1 GiB' } }"},
            ["options.tensorrt.workspace_bytes: found '1 GiB' (a string), expected an integer"],
        ),
        (
            {"options": "{ tensorrt = { dla_core = -1 } }"},
            ["options.tensorrt.dla_core: found -1 (an integer), expected at least 0"],
        ),
        ({"options": "{ tftrt = { use_calibration = 1 } }"}, ["options.tftrt.use_calibration", "expected true or false"]),
        (
            {"options": "{ edgetpu = { device = 'usb0' } }"},
            ["options.edgetpu.device: found 'usb0' (a string), expected 'usb', 'pci', 'usb:0'"],
        ),
        ({"calibration": None}, ["backends.tflite[1]: found 'int8' but no calibration set"]),
        ({"evaluation": "{}"}, ["evaluation: found neither file, url nor seed"]),
        ({"evaluation": '{ file = "e.npz", url = "https://example.org/e.npz" }'}, ["evaluation: found file and url"]),
        ({"evaluation": "{ seed = 7, count = 8, top1 = 0.9 }"}, ["evaluation.top1: found a value, expected none"]),
        ({"calibration": "{}"}, ["calibration: found neither file, url nor seed"]),
        (
            {"calibration": '{ file = "evaluation.npz" }'},
            ["calibration.file: found 'evaluation.npz'", "which is the evaluation set"],
        ),
        ({"calibration": '{ file = "../{folder}/evaluation.npz" }'}, ["calibration.file", "which is the evaluation set"]),
        ({"calibration": "{ seed = 1 }"}, ["calibration.count: found nothing"]),
        ({"calibration": '{ file = "c.npz", count = 3 }'}, ["calibration.count: found a value, expected none without seed"]),
        ({"calibration": '{ seed = 1, count = 3, labels = "a.csv" }'}, ["calibration.labels: found a value, expected none"]),
        (
            {"preprocessing": '{ scaling = "zero_to_on", channel_order = "grayscale" }'},
            ["preprocessing.scaling", "'zero_to_one'?"],
        ),
        (
            {**COLOUR, "preprocessing": '{ scaling = "imagenet_mean_bgr" }'},
            ["preprocessing.scaling", "expected channel_order = 'bgr'"],
        ),
        ({"preprocessing": '{ scaling = "imagenet_mean_std", channel_order = "grayscale" }'}, ["expected three channels"]),
        ({"preprocessing": '{ channel_order = "grayscale", maximum = 0 }'}, ["preprocessing.maximum: found 0", "more than 0"]),
        ({"preprocessing": '{ channel_order = "grayscale", maximum = nan }'}, ["preprocessing.maximum: found nan"]),
        ({**COLOUR, "input": '{ shape = [9, 9, 3], dtype = "uint8" }'}, ["preprocessing.scaling", "'uint8'"]),
        ({**COLOUR, "preprocessing": '{ resize = "resize_and_crop", resize_shorter_side = 200 }'}, ["at least", "224"]),
        (
            {**COLOUR, "preprocessing": "{ resize_shorter_side = 256 }"},
            ["resize_shorter_side", "unless resize is 'resize_and_crop'"],
        ),
    ],
)
def test_a_bad_card_is_refused_with_file_key_found_and_expected(
    tmp_path: Path, changes: dict[str, str | None], parts: list[str]
) -> None:
    filled = {key: value.replace("{folder}", tmp_path.name) if value else value for key, value in changes.items()}
    text = message(tmp_path, **filled)
    assert "\n" not in text
    assert text.startswith(str(tmp_path / "card.toml"))
    for part in parts:
        assert part in text
    assert "pydantic" not in text.lower() and "input_value" not in text and "https://errors" not in text


def test_several_problems_are_listed_line_by_line(tmp_path: Path) -> None:
    lines = message(tmp_path, name='"A"', labels="{ count = 0 }", nam="1").splitlines()
    assert lines[0].endswith("card.toml has 3 problems:")
    assert {line.strip().split(":")[0] for line in lines[1:]} == {"name", "labels.count", "nam"}


def test_problems_between_keys_are_listed_together_too(tmp_path: Path) -> None:
    lines = message(tmp_path, calibration=None, batches="[1, 1]").splitlines()
    assert [line.strip().split(":")[0] for line in lines[1:]] == ["backends.tflite[1]", "batches[1]"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"name = ", "is not TOML"),
        (b'name = "\xff"', "not UTF-8"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"a = 1\na = 2", "is not TOML"),
    ],
)
def test_what_is_not_toml_is_said_to_be_none(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "card.toml"
    path.write_bytes(content)
    with pytest.raises(CardError, match=part) as caught:
        load_card(path)
    assert str(path) in str(caught.value)


def test_a_missing_card_and_a_directory_are_said(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no such file"):
        load_card(tmp_path / "none.toml")
    with pytest.raises(CardError, match="cannot be read"):
        load_card(tmp_path)


def test_one_url_or_digest_for_both_sets_is_refused(tmp_path: Path) -> None:
    url = '{ url = "https://h/a.npz" }'
    assert "calibration.url" in message(tmp_path, evaluation=url, calibration=url)
    digest = f'sha256 = "{SHA}"'
    text = message(tmp_path, evaluation=f'{{ file = "e.npz", {digest} }}', calibration=f'{{ file = "c.npz", {digest} }}')
    assert "calibration.sha256" in text


def test_one_folder_divided_by_two_csvs_is_accepted(tmp_path: Path) -> None:
    load(tmp_path, evaluation='{ file = "all", labels = "e.csv" }', calibration='{ file = "all", labels = "c.csv" }')


def test_the_seed_of_the_calibration_is_not_that_of_the_evaluation(tmp_path: Path) -> None:
    same = f"{{ seed = {DEFAULT_EVALUATION_SEED}, count = 8 }}"
    assert "calibration.seed" in message(tmp_path, evaluation=None, calibration=same)
    assert "calibration.seed" in message(tmp_path, evaluation="{ seed = 7, count = 8 }", calibration="{ seed = 7, count = 9 }")
    card = load(tmp_path, evaluation=None, calibration=f"{{ seed = {DEFAULT_EVALUATION_SEED + 1}, count = 8 }}")
    assert card.evaluation_source.seed == DEFAULT_EVALUATION_SEED


def test_plugins_can_add_backends_and_scalings(tmp_path: Path) -> None:
    path = write(
        tmp_path, card_text(backends="{ hexagon = ['int4'] }", preprocessing='{ channel_order = "grayscale", scaling = "mine" }')
    )
    with pytest.raises(CardError):
        load_card(path)
    card = load_card(path, {**BACKENDS, "hexagon": ("int4",)}, extra_scalings=["mine"])
    assert card.backends == {"hexagon": ["int4"]}


def test_options_are_what_the_card_gives_and_nothing_else(tmp_path: Path) -> None:
    backends = "{ tensorrt = ['fp32'], edgetpu = ['int8'], tflite = ['fp32'] }"
    card = load(tmp_path, backends=backends, options="{ tensorrt = { dla_core = 0, timing_cache = false }, edgetpu = {} }")
    assert card.options.of("tensorrt") == {"dla_core": 0, "timing_cache": False}
    assert card.options.of("edgetpu") == card.options.of("tflite") == card.options.of("none") == {}
    for device in ("usb", "pci", ":1", "usb:0", "pci:12"):
        assert load(tmp_path, backends=backends, options=f"{{ edgetpu = {{ device = '{device}' }} }}")


def test_a_plugin_s_backend_gets_its_table_as_it_is_and_its_device_is_known(tmp_path: Path) -> None:
    known = {**BACKENDS, "hexagon": BackendInfo(("int4",), ("dsp",))}
    changes = {"backends": "{ hexagon = ['int4'] }", "options": "{ hexagon = { cores = [0, 1] } }"}
    card = load_card(write(tmp_path, card_text(**changes, devices="{ hexagon = ['dsp'] }")), known)
    assert card.options.of("hexagon") == {"cores": [0, 1]}
    with pytest.raises(CardError, match="no known device of hexagon; expected one of dsp"):
        load_card(write(tmp_path, card_text(**changes, devices="{ hexagon = ['cpu'] }")), known)
    with pytest.raises(CardError, match=r"options\.hexagon: found 3 \(an integer\), expected a table"):
        load_card(write(tmp_path, card_text(**{**changes, "options": "{ hexagon = 3 }"})), known)


def test_cards_are_read_from_the_folder_and_one_level_below(tmp_path: Path) -> None:
    write(tmp_path, card_text(name='"a"'), "a.toml")
    write(tmp_path, card_text(name='"b"'), "zoo/b.toml")
    write(tmp_path, card_text(name='"c"'), "zoo/deeper/c.toml")
    write(tmp_path, "file = []", "checkpoints.lock.toml")
    assert sorted(card.name for card in load_cards(tmp_path)) == ["a", "b"]


def test_problems_of_all_cards_and_names_used_twice_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, card_text(), "a.toml")
    write(tmp_path, card_text(), "b.toml")
    write(tmp_path, "x", "c.toml")
    with pytest.raises(CardError) as caught:
        load_cards(tmp_path)
    first, second = str(caught.value).splitlines()
    assert "b.toml: name: found 'digits', which" in first and "a.toml" in first
    assert "c.toml: the card is not TOML" in second


def test_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="not a directory"):
        load_cards(tmp_path / "none")


def test_the_shipped_cards_are_good() -> None:
    cards = {card.name: card for card in load_cards(Path(__file__).parents[2] / "models" / "zoo")}
    assert {"mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "resnet50", "inception_v3", "densenet121"} <= set(cards)
    assert {"vgg16", "vgg19", "nasnet_mobile", "mobilenet_v1_1.0_224_quant"} <= set(cards)
    for card in cards.values():
        assert not card.default and card.license and card.checkpoint.url
    seeded = load_card(Path(__file__).parents[2] / "models" / "mobilenet_v2_224_seeded.toml")
    on_cpu = {backend: info for backend, info in BACKENDS.items() if "cpu" in info.devices and backend in seeded.backends}
    assert {backend: set(seeded.backends[backend]) for backend in on_cpu} == {b: set(i.precisions) for b, i in on_cpu.items()}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), str(value) if "." in str(value) else f"{value:f}")
    if isinstance(value, str):
        escaped = "".join(char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}" for char in value)
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return "0" if value is None else str(value)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([*GOOD, "tolerance", "batches", "threads", "description"]), value=_values)
def test_no_value_raises_anything_but_a_card_error(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    path = write(tmp_path_factory.mktemp("card"), card_text(**{key: _toml(value)}))
    text = problems_of(path)
    assert not text or str(path) in text
    assert all(line.isprintable() for line in text.splitlines())


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_text_raises_anything_but_a_card_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("card") / "card.toml"
    path.write_bytes(content)
    with pytest.raises(CardError):
        load_card(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_cut_or_flipped_card_raises_anything_but_a_card_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = card_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    path = write(tmp_path_factory.mktemp("card"), text[:start] + data.draw(st.text("[]{}=\"'0a.,\n", max_size=4)) + text[end:])
    assert "pydantic" not in problems_of(path).lower()
