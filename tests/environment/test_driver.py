"""The installer reads the driver, compares it with what the CUDA lock needs, and says so before any download."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from environment import driver, install
from environment.driver import Driver, cuda_version, read_driver, refusal
from environment.locks import PYTHONS, lock_path

LOCK = lock_path("gpu", PYTHONS[0]).read_text()
MODULE_TEXTS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12.2.0": (
        "535.104.05"
    ),
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n": "580.65.06",
    "something else\n": "",
}


def fake_smi(folder: Path, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def answers(version: str, capability: str = "9.0") -> str:
    return f'case "$1" in *driver_version*) printf "{version}\\n{version}\\n";; *) printf "{capability}\\n";; esac'


@pytest.mark.parametrize("text", MODULE_TEXTS, ids=MODULE_TEXTS.values())
def test_the_kernel_module_names_its_version(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "version").write_text(text)
    assert read_driver(tmp_path / "version").version == MODULE_TEXTS[text]


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    fake_smi(tmp_path, answers("580.95.05", r"9.0\n8.0"))
    assert read_driver(tmp_path / "none") == Driver("580.95.05", ("9.0", "8.0"), "")
    fake_smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    failed = read_driver(tmp_path / "none")
    assert (failed.version, failed.complaint) == ("", "Failed to initialize NVML: Driver/library version mismatch")


@pytest.mark.parametrize(
    "version, capabilities, expected",
    [
        ("580.65.06", ("9.0",), ""),
        ("580.126.20", ("7.5", "9.0"), ""),
        ("1000.1", (), ""),
        ("", (), ""),
        ("580.65.05", ("9.0",), "the NVIDIA driver is 580.65.05, and the CUDA environment (CUDA 13.0) needs driver"),
        ("99.1", (), "the NVIDIA driver is 99.1"),
        ("580.95.05", ("7.0", "6.1"), "the GPU has compute capability 6.1, 7.0"),
        ("580.95.05", ("7.0", "10.0"), ""),
    ],
)
def test_an_old_driver_or_gpu_is_refused_in_one_line(
    version: str, capabilities: tuple[str, ...], expected: str
) -> None:
    message = refusal(Driver(version, capabilities, ""), LOCK)
    assert message.startswith(expected) and bool(message) == bool(expected) and "\n" not in message
    assert not message or "LOGITBANK_DEVICE=cpu" in message


def test_every_cuda_lock_names_a_cuda_version_with_a_known_driver() -> None:
    for python in PYTHONS:
        assert cuda_version(lock_path("gpu", python).read_text()).partition(".")[0] in driver.OLDEST
    assert cuda_version(lock_path("cpu", PYTHONS[0]).read_text()) == ""


@pytest.mark.skipif(driver.MODULE.exists(), reason="needs a machine without an NVIDIA driver of its own")
@pytest.mark.parametrize(
    "body, device, expected",
    [
        (answers("535.104.05"), "", "environment: the NVIDIA driver is 535.104.05, and the CUDA environment"),
        (answers("535.104.05"), "gpu", "environment: the NVIDIA driver is 535.104.05, and the CUDA environment"),
        (answers("580.95.05", "7.0"), "", "environment: the GPU has compute capability 7.0"),
        (answers("580.95.05"), "tpu", "environment: LOGITBANK_DEVICE is 'tpu'"),
    ],
)
def test_make_setup_stops_before_it_makes_anything(body: str, device: str, expected: str, tmp_path: Path) -> None:
    fake_smi(tmp_path / "bin", body)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"LOGITBANK_VENV": str(tmp_path / "venv"), "LOGITBANK_DEVICE": device}
    command = [sys.executable, "-m", "environment.install"]
    run = subprocess.run(command, cwd=install.HERE.parent, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith(expected) and run.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_a_driver_chooses_the_cuda_lock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("LOGITBANK_DEVICE", raising=False)
    assert install.choose_device(Driver("580.95.05", (), "")) == "gpu"
    silent = Driver("", (), "Failed to initialize NVML")
    assert install.choose_device(silent) == "cpu"
    install.check_driver("cpu", silent, LOCK)
    assert (
        "nvidia-smi does not answer (Failed to initialize NVML); taking the CPU environment" in capsys.readouterr().out
    )
    install.check_driver("gpu", Driver("", (), ""), LOCK)
    assert "no NVIDIA driver answers here; the CUDA environment (CUDA 13.0) needs driver" in capsys.readouterr().out


def test_another_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    with pytest.raises(SystemExit, match=r"there are locks for Python 3\.11 and 3\.12, and this is"):
        install.check_platform()
