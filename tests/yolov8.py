"""YOLOv8n-cls as ultralytics exports it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def export(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ONNX file, with seeded weights: those of ultralytics are under the AGPL.

    Convolutions get 1.7 times the deviation that keeps activations of one size in a linear network,
    as SiLU takes about that away; so that answers depend on the image.

    Where there is no ultralytics, TRTINFER_YOLOV8 may name a file that this function has made.
    """
    made = os.environ.get("TRTINFER_YOLOV8")
    if made:
        return Path(made)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(folder))
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    ultralytics = pytest.importorskip("ultralytics")
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    model = ultralytics.YOLO("yolov8n-cls.yaml")
    for module in model.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            module.weight.data *= 1.7
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.05)
    path = model.export(format="onnx", imgsz=224, dynamic=True, simplify=False)
    return Path(path).resolve()
