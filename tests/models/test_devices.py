"""Devices: what they compute in."""

from __future__ import annotations

import torch

from voxelsoup.models import devices


def test_automatic_precision_is_what_the_device_has() -> None:
    cpu = torch.device("cpu")
    assert devices.precision_on(cpu, "auto") == "float32"
    assert devices.precision_on(cpu, "float16") == "float16"
    with devices.autocast(cpu, "auto"):
        assert not torch.is_autocast_enabled("cpu")
