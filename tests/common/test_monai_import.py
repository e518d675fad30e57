"""MONAI in the processes of jobs: the same networks, without packages that no job uses."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

from voxelsoup.common.logs import START_RECORD


def outputs_of_networks() -> list[float]:
    """What some networks of MONAI say, one of which needs einops, an optional package too."""
    import torch
    from monai.networks import nets

    torch.set_num_threads(1)
    networks = [
        nets.MedNeXt(3, 4, 1, 2, blocks_down=(1, 1), blocks_bottleneck=1, blocks_up=(1, 1)),
        nets.DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 4, 8]),
        nets.UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2),
    ]
    torch.manual_seed(0)
    found = []
    for network in networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        with torch.no_grad():
            image = torch.linspace(0, 1, 32**3).reshape(1, 1, 32, 32, 32)
            found.append(network.eval()(image).abs().sum().item())
    return found


IN_A_JOB = f"""
import sys
import voxelsoup
{inspect.getsource(outputs_of_networks)}
found = outputs_of_networks()
unused = [name for name in ("matplotlib", "scipy.signal", "tensorboard") if name in sys.modules]
# They can be imported afterwards.
import matplotlib, scipy.signal
print(found, unused)
"""


def test_networks_of_a_job_are_those_of_monai_and_unused_packages_are_not_imported() -> None:
    import torch

    threads = torch.get_num_threads()
    expected = outputs_of_networks()
    torch.set_num_threads(threads)

    environment = os.environ | {START_RECORD: "there is none"}
    command = [sys.executable, "-c", IN_A_JOB]
    job = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr
    assert job.stdout.strip() == f"{expected} []"
