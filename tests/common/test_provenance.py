"""What results record of themselves, as far as other results depend on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from voxelsoup.common.files import sha256
from voxelsoup.common.provenance import FORMER_NAME, hash_of_weights
from voxelsoup.models import weight_files


@pytest.mark.parametrize("length", range(8))
def test_a_model_file_has_the_hash_that_it_had_under_the_former_name(
    tmp_path: Path, length: int
) -> None:
    # Of every length modulo 8: the format pads its header.
    weights, description = {"w": torch.randn(3), "b": torch.randn(2).half()}, {"n": "x" * length}
    weight_files.save(tmp_path / "m", weights, description)
    (tmp_path / "before").write_bytes(
        save(weights, metadata={FORMER_NAME: f'{{"n": "{"x" * length}"}}'})
    )
    assert sha256(tmp_path / "m") != sha256(tmp_path / "before")
    assert hash_of_weights(tmp_path / "m") == sha256(tmp_path / "before")
    assert hash_of_weights(tmp_path / "before") == sha256(tmp_path / "before")


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 20, save({"w": torch.zeros(2)}, metadata={"format": "pt"})],
)
def test_a_file_of_another_program_has_its_own_hash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    assert hash_of_weights(tmp_path / "m") == hashlib.sha256(content).hexdigest()
