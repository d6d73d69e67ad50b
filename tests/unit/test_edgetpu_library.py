"""Where the Edge TPU's runtime is looked for, and what is said where it does not come up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.agent import edgetpu_library as library
from pytest_inference_gate.agent.failures import LoadError


@pytest.mark.parametrize(
    ("platform", "place"),
    [
        ("linux", "usr/lib/aarch64-linux-gnu/libedgetpu.so.1"),
        ("linux", "usr/local/lib/libedgetpu.so.1"),
        ("linux", "lib/x86_64-linux-gnu/libedgetpu.so.1"),
        ("darwin", "opt/homebrew/lib/libedgetpu.1.dylib"),
        ("darwin", "usr/local/lib/libedgetpu.1.dylib"),
    ],
)
def test_where_the_library_lies(tmp_path: Path, platform: str, place: str) -> None:
    root = str(tmp_path)
    assert not library.is_installed(root, platform)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(b"\x7fELF")
    assert library.is_installed(root, platform)


def test_a_folder_that_only_the_loader_s_cache_knows(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libm.so.6\0/opt/coral/libedgetpu.so.1.0\0")
    assert not library.is_installed(str(tmp_path), "linux")
    (tmp_path / "etc" / "ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libm.so.6\0/opt/coral/libedgetpu.so.1\0")
    assert library.is_installed(str(tmp_path), "linux")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_folder_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setenv(library.PATHS[platform], str(tmp_path))
    (tmp_path / library.name(platform)).write_bytes(b"")
    assert library.is_installed("/", platform)


@pytest.mark.parametrize("device", ["usb", "pci", "usb:0", "pci:12", ":0", ""])
def test_devices_as_the_library_names_them(device: str) -> None:
    assert library.delegate_options({"device": device}) == {"device": device}
    assert library.delegate_options({}) == {}


@pytest.mark.parametrize("device", ["usb0", "usb:", "pcie", "usb:-1", "1", "/dev/apex_0"])
def test_devices_that_the_library_does_not_know(device: str) -> None:
    with pytest.raises(LoadError, match="write usb, pci, usb:0, pci:0 or :0"):
        library.delegate_options({"device": device})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("libedgetpu.so.1: cannot open shared object file: No such file or directory", "is not installed here"),
        (
            "libusb-1.0.so.0: cannot open shared object file: No such file or directory",
            "libedgetpu.so.1 is there, but libusb-1.0.so.0, which it needs, is not",
        ),
        ("dlopen(libedgetpu.1.dylib, 0x000A): tried: 'libedgetpu.1.dylib' (no such file)", "is not installed here"),
        ("Could not find module 'edgetpu.dll' (or one of its dependencies).", "is not installed here"),
        ("/lib/libedgetpu.so.1: version `GLIBCXX_3.4.30' not found", "built for this system"),
        ("libedgetpu.so.1: wrong ELF class: ELFCLASS32", "built for this system"),
    ],
)
def test_what_the_loader_says(error: str, words: str) -> None:
    assert words in str(library.library_failure(OSError(error), "libedgetpu.so.1"))


def load(raised: BaseException | None, options: dict[str, Any]) -> Any:
    def load_delegate(name: str, wished: dict[str, str]) -> Any:
        if raised is not None:
            raise raised
        return name, wished

    return library.load(load_delegate, options, "ai_edge_litert 2.3.0")


def test_the_delegate_gets_the_options() -> None:
    assert load(None, {"device": "usb:1", "timeout_seconds": 9}) == (library.name(), {"device": "usb:1"})


@pytest.mark.parametrize(
    ("raised", "options", "words"),
    [
        (ValueError("Failed to load delegate from libedgetpu.so.1\n"), {}, "opened no Edge TPU: see that it is plugged in"),
        (ValueError("Failed to load delegate from libedgetpu.so.1\nbusy"), {}, r"opened no Edge TPU \(busy\)"),
        (ValueError("Failed to load delegate from libedgetpu.so.1\n"), {"device": "pci"}, "no free Edge TPU that is pci"),
        (AttributeError("undefined symbol: tflite_plugin_create_delegate"), {}, "no TensorFlow Lite delegate"),
    ],
)
def test_delegates_that_do_not_come_up(raised: BaseException, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(raised, options)


def test_a_runtime_without_delegates() -> None:
    with pytest.raises(LoadError, match="ai_edge_litert 9.0 has no load_delegate"):
        library.load(None, {}, "ai_edge_litert 9.0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Failed to prepare for TPU. Failed precondition: Package requires runtime version (14), which is newer than this runtime "
            "version (13).Node number 2 (EdgeTpuDelegateForCustomOp) failed to prepare.",
            "minimum_runtime_version = 13",
        ),
        (
            "Internal: Unsupported data type in custom op handler: 0Node number 1 (EdgeTpuDelegateForCustomOp) failed to prepare.",
            "do not fit each other",
        ),
        (
            "Internal: :159 batches * single_input_size != input->bytes (150528 != 12544)Node number 1 (EdgeTpuDelegateForCustomOp) "
            "failed to prepare.",
            "do not fit each other",
        ),
        ("Encountered unresolved custom op: edgetpu-custom-op.\nSee instructions: ...", "still takes external delegates"),
        ("Failed to prepare for TPU. Deadline exceeded: USB.", "did not take the model: Failed to prepare for TPU"),
    ],
)
def test_what_the_interpreter_says_of_a_model(text: str, words: str) -> None:
    assert words in str(library.preparing_failure(RuntimeError(text), "tflite_runtime 2.14.0", 13))


def test_errors_of_another_kind_are_left_as_they_are() -> None:
    assert library.preparing_failure(RuntimeError("tensor is not allocated"), "tflite_runtime 2.14.0", None) is None


class Tell:
    """As ctypes calls a function of the library."""

    restype: Any = None

    def __init__(self, text: bytes | None) -> None:
        self.text = text

    def __call__(self) -> bytes | None:
        return self.text


@pytest.mark.parametrize(
    ("text", "version"),
    [(b"BuildLabel(COMPILER=6.3.0,DATE=redacted), RuntimeVersion(14)", 14), (b"something else", None), (None, None)],
)
def test_the_version_of_the_runtime(text: bytes | None, version: int | None) -> None:
    class Delegate:
        class _library:  # noqa: N801  # named by the runtime
            edgetpu_version = Tell(text)

    assert library.runtime_version(Delegate) == version
    assert library.runtime_version(object()) is None
