"""``inference-gate init`` on files of PyTorch: state dicts whose architecture is recognized, and what is never run."""

import os
import subprocess
import sys

import pytest

from pytest_inference_gate.cards import load_card

MAKE = """
import os, pickle, torch, torchvision
torch.manual_seed(0)
model = torchvision.models.squeezenet1_1(num_classes=5)
torch.save({"epoch": 3, "state_dict": {"module." + name: value for name, value in model.state_dict().items()}}, "squeezenet1_1-mine.pth")
torch.save(torch.nn.Sequential(torch.nn.Linear(3, 3)).state_dict(), "other.pt")
torch.save(model, "whole.pt")
torch.jit.trace(torch.nn.ReLU(), torch.zeros(2)).save("script.pt")
class Program:
    def __reduce__(self):
        return os.system, ("touch it_ran",)
torch.save({"state_dict": Program()}, "program.pt")
"""


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    done = run("-c", MAKE, cwd=folder)
    if done.returncode:
        pytest.skip(done.stderr.strip().rpartition("\n")[2])
    return folder


def init(*arguments, cwd):
    return run("-m", "pytest_inference_gate", "init", *arguments, cwd=cwd)


def test_a_state_dict_is_recognized_and_its_suite_is_green(place):
    done = init("squeezenet1_1-mine.pth", "--shape=3,64,64", "--name=squeezed", cwd=place)
    assert done.returncode == 0, done.stderr
    card = load_card(place / "gate" / "models" / "squeezed.toml")
    assert card.checkpoint.architecture is not None
    assert card.checkpoint.architecture.model_dump() == {
        "function": "torchvision.models.squeezenet1_1",
        "arguments": {"num_classes": 5},
    }
    assert (card.labels.count, card.preprocessing.scaling, card.input.layout) == (5, "imagenet_mean_std", "nchw")
    assert "    torchvision\n" in (place / "gate" / "tox.ini").read_text()
    quick = ("--gate-replicates=3", "--gate-rounds=10", "--gate-warm-up=0.005", f"--gate-store={place / 'store'}")
    done = run("-m", "pytest", "-m", "cpu", "--gate-select=squeezed-torch-*", *quick, cwd=place / "gate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("squeezenet1_1-mine.pth",), "takes pictures of any size, its input being (?, 3, ?, ?): say the one"),
        (("other.pt", "--architecture=torchvision.models.resnet18"), "the weights are not those of torchvision.models.resnet18"),
        (("other.pt", "--architecture=os.system"), "expected one of torchvision"),
        (("whole.pt",), "is not a file of weights alone"),
        (("script.pt",), "is a TorchScript program"),
        (("program.pt",), "is not a file of weights alone"),
    ],
)
def test_what_would_have_to_be_run_or_guessed_is_refused(place, arguments, sentence):
    done = init(*arguments, cwd=place)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (place / "it_ran").exists()
