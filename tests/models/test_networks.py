"""Networks: MedNeXt in its sizes, MONAI's others by name, and messages about mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.networks.nets.mednext import MedNeXt, create_mednext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxelsoup.common.errors import InputError
from voxelsoup.models.networks import (
    build,
    check_outputs,
    count_parameters,
    memory_format,
    outline,
    seeded,
    to_memory_format,
)
from voxelsoup.models.weight_files import load, save
from voxelsoup.study.sections.training import Network

TINY = {
    "init_filters": 4,
    "blocks_down": [1, 1],
    "blocks_bottleneck": 1,
    "blocks_up": [1, 1],
    "encoder_expansion_ratio": 2,
    "decoder_expansion_ratio": 2,
    "bottleneck_expansion_ratio": 2,
}


@pytest.mark.parametrize(("size", "millions"), [("S", 5.6), ("B", 10.5), ("M", 17.6), ("L", 61.8)])
def test_mednext_has_the_published_sizes(size: str, millions: float) -> None:
    """Roy et al. 2023, Table 1: millions of weights at kernel 3."""
    with torch.device("meta"):
        model = build(Network(size=size), channels=4, regions=3)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, rel=0.05)


def test_other_networks_of_monai_by_name() -> None:
    network = Network(name="SegResNet", arguments={"init_filters": 8})
    with torch.device("meta"):
        model = build(network, channels=2, regions=3)
        assert model(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network(name="SegResNett"), "did you mean `SegResNet`?"),
        (Network(name="Enum"), "no class `Enum`"),
        (Network(name="SegResNet", arguments={"filters": 8}), "'filters'"),
        (Network(size="free", arguments=TINY | {"init_filters": -4}), "negative dimension"),
        (Network(size="free", arguments=TINY | {"encoder_expansion_ratio": [2]}), "out of range"),
        (Network(arguments={"out_channels": 7}), "what sets it is `regions`"),
        (Network(arguments={"in_channels": 7}), "what sets it is `dataset.channels`"),
        (Network(arguments={"kernel_size": 7}), "what sets it is `network.kernel_size`"),
    ],
)
def test_an_unknown_network_or_argument_is_refused(network: Network, said: str) -> None:
    for make in (build, outline):
        with pytest.raises(InputError) as caught:
            make(network, channels=1, regions=1)
        assert said in str(caught.value)


def test_a_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    network = Network(name="SegResNet", arguments={"init_filters": 8})
    state = torch.random.get_rng_state()
    models = []
    for _ in range(2):
        with seeded(7):
            models.append(build(network, 1, 1).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """On one thread torch computes small images in the plain format, whatever theirs is."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("channels", [1, 2])
def test_all_layers_keep_channels_last_of_their_input(channels: int) -> None:
    """MedNeXt's weights, and images of one channel, lie alike in both formats but for strides."""
    together = torch.channels_last_3d
    model = build(Network(size="free", arguments=TINY), channels, 3).eval()
    image = to_memory_format(torch.randn(2, channels, 16, 16, 16), together)
    outputs: list[torch.Tensor] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            layer.register_forward_hook(lambda layer, taken, given: outputs.append(given))
    with torch.inference_mode():
        model(image)
    found = [output.is_contiguous(memory_format=together) for output in outputs]
    assert len(found) > 20 and all(found)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5, 6), (8, 4, 1, 1, 1), (2, 3, 4, 5, 6)])
def test_to_memory_format_sets_the_strides_of_the_format(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    for chosen in (torch.channels_last_3d, torch.contiguous_format):
        found = to_memory_format(tensor, chosen)
        assert torch.equal(found, tensor)
        assert found.stride() == torch.empty(shape, memory_format=chosen).stride()
        assert torch.equal(to_memory_format(found, torch.contiguous_format), tensor)


def test_memory_format_is_channels_last_where_it_is_faster_or_asked_for() -> None:
    mednext = outline(Network(size="S"), 1, 1)
    other = outline(Network(name="SegResNet"), 1, 1)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    together, apart = torch.channels_last_3d, torch.contiguous_format
    assert memory_format(mednext, cpu, "auto") == together
    assert memory_format(mednext, gpu, "auto") == memory_format(other, cpu, "auto") == apart
    assert memory_format(mednext, cpu, False) == apart
    assert memory_format(other, gpu, True) == together


@pytest.mark.parametrize("size", ["S", "B", "M", "L"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_every_size_and_kernel_is_monais_own(size: str, kernel: int) -> None:
    """MONAI's factory function, which the code does not use, is the oracle."""
    with torch.device("meta"):
        other = create_mednext(
            size, 3, in_channels=2, out_channels=3, kernel_size=kernel, deep_supervision=False
        )
    model = outline(Network(size=size, kernel_size=kernel), channels=2, regions=3)
    shapes = [{name: w.shape for name, w in m.state_dict().items()} for m in (model, other)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_free_mednext_with_the_numbers_of_s_is_s() -> None:
    """Roy et al. 2023, Table 1: two blocks per stage, expansion 2, and residual connections."""
    numbers = {
        "init_filters": 32,
        "blocks_down": [2, 2, 2, 2],
        "blocks_bottleneck": 2,
        "blocks_up": [2, 2, 2, 2],
        "encoder_expansion_ratio": 2,
        "decoder_expansion_ratio": 2,
        "bottleneck_expansion_ratio": 2,
    }
    networks = (Network(size="S"), Network(size="free", arguments=numbers))
    built = [outline(network, channels=4, regions=3).state_dict() for network in networks]
    shapes = [{name: weights.shape for name, weights in state.items()} for state in built]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("deep", [False, True])
def test_a_free_mednext_gives_a_logit_per_region_at_full_size(deep: bool) -> None:
    network = Network(size="free", arguments=TINY, deep_supervision=deep)
    model = build(network, channels=2, regions=3)
    volume = torch.zeros(1, 2, 16, 8, 12)
    trained = model.train()(volume)
    outputs = list(trained) if deep else [trained]
    assert outputs[0].shape[2:] == (16, 8, 12)
    assert len(outputs) == (3 if deep else 1)
    assert all(output.shape[:2] == (1, 3) for output in outputs)
    with torch.no_grad():
        assert model.eval()(volume).shape == (1, 3, 16, 8, 12)


def test_a_mednext_of_strides_2_is_monais() -> None:
    networks = [
        Network(size="free", arguments=TINY, strides=strides) for strides in (None, 2 * [[2, 2, 2]])
    ]
    volume, models = torch.randn(1, 2, 16, 8, 12), []
    for network in networks:
        with seeded(1):
            models.append(build(network, channels=2, regions=3).eval())
    with torch.inference_mode():
        assert torch.equal(models[0](volume), models[1](volume))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_mednext_that_halves_no_slices_is_the_plane_one_on_a_single_slice(
    axis: int, kernel: int
) -> None:
    """MONAI's MedNeXt of planes is the oracle: of a kernel, only the middle meets the one slice."""
    strides = 2 * [[1 if along == axis else 2 for along in range(3)]]
    network = Network(size="free", arguments=TINY, strides=strides, kernel_size=kernel)
    model = build(network, channels=2, regions=3).eval()
    planes = MedNeXt(
        spatial_dims=2,
        in_channels=2,
        out_channels=3,
        kernel_size=kernel,
        use_residual_connection=True,
        **TINY,
    ).eval()
    weights = {
        name: weight.select(2 + axis, weight.shape[2 + axis] // 2) if weight.ndim == 5 else weight
        for name, weight in model.state_dict().items()
    }
    planes.load_state_dict(weights)
    slice_ = torch.randn(1, 2, 16, 8)
    with torch.inference_mode():
        found = model(slice_.unsqueeze(2 + axis)).squeeze(2 + axis)
        torch.testing.assert_close(found, planes(slice_))


def test_a_mednext_halves_each_axis_as_often_as_its_strides_say() -> None:
    strides = [[2, 2, 1], [2, 1, 1], [2, 2, 2], [2, 2, 1]]
    network = Network(size="S", strides=strides, deep_supervision=True)
    assert network.divisors == [16, 8, 2]
    model = outline(network, channels=1, regions=2)
    check_outputs(model, 1, 2, [32, 40, 6])
    coarsest = model.train()(torch.zeros(1, 1, 32, 40, 6, device="meta"))[-1]
    assert coarsest.shape == (1, 2, 2, 5, 3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("UNet", {"channels": [4, 8], "strides": [2]}),
        ("DynUNet", {"kernel_size": 3 * [3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}),
    ],
)
def test_other_networks_can_be_saved_and_read_back(tmp_path, name: str, arguments: dict) -> None:
    """DynUNet holds one tensor under several names, which safetensors alone refuses to write."""
    model = build(Network(name=name, arguments=arguments), channels=2, regions=3)
    save(tmp_path / "model.safetensors", model.state_dict(), {})
    weights, _ = load(tmp_path / "model.safetensors")
    own = model.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[key], own[key]) for key in own)


def test_a_network_that_needs_memory_to_be_built_has_an_outline_all_the_same() -> None:
    """SwinUNETR reads numbers out of tensors, which torch's meta device has none of."""
    network = Network(name="SwinUNETR", arguments={"feature_size": 12})
    assert count_parameters(outline(network, channels=1, regions=2)) > 0


DEEP = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("UNet", {"channels": [4, 8], "strides": [2]}),
        ("DynUNet", DEEP | {"filters": [8, 8, 8]}),
        ("DynUNet", DEEP | {"filters": [8, 8, 8], "deep_supervision": True}),
        ("SwinUNETR", {"feature_size": 12, "depths": [1] * 4, "num_heads": [1] * 4}),
        ("UNETR", {"img_size": [64] * 3, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2}),
        ("SegResNetDS", {"init_filters": 8, "blocks_down": [1, 1], "dsdepth": 2}),
        ("MedNeXt", {}),
    ],
)
def test_networks_of_monai_give_one_map_per_region(name: str, arguments: dict) -> None:
    network = Network(name=name, arguments=arguments, deep_supervision=name == "MedNeXt")
    model = outline(network, 4, 3)
    check_outputs(model, channels=4, regions=3, patch=[64, 64, 64])
    with torch.inference_mode():
        output = model.to("meta").eval()(torch.zeros(1, 4, 64, 64, 64, device="meta"))
    assert output.shape == (1, 3, 64, 64, 64)
    with pytest.raises(InputError, match=f"{type(model).__name__} gives"):
        check_outputs(model, channels=4, regions=2, patch=[64, 64, 64])


@pytest.mark.parametrize(
    ("name", "arguments", "side", "said"),
    [
        ("UNet", {"channels": [4, 8, 8], "strides": [2, 2]}, 18, r"fails on a patch of \[18, 16,"),
        ("BasicUNetPlusPlus", {"features": [4] * 6}, 32, "gives list when it is evaluated"),
        ("DenseNet121", {}, 64, "DenseNet121 (gives|fails)"),
    ],
)
def test_a_network_whose_output_does_not_segment_the_patch_is_refused(
    name: str, arguments: dict, side: int, said: str
) -> None:
    patch = [side, side, side] if side > 18 else [side, 16, 16]
    model = outline(Network(name=name, arguments=arguments), 4, 3)
    with pytest.raises(InputError, match=said) as caught:
        check_outputs(model, channels=4, regions=3, patch=patch)
    assert "network.arguments" in caught.value.fix


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return, but for those without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        returned = function(*arguments, **(keywords or {}))
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
        self.bytes += sum(tensor.nbytes for tensor in tensors if not tensor.is_meta)
        return returned


def test_a_check_of_a_full_size_network_takes_no_memory() -> None:
    network = Network(size="L", deep_supervision=True)
    with Allocations() as allocated:
        model = outline(network, 4, 3)
        check_outputs(model, channels=4, regions=3, patch=[512, 512, 512])
    assert allocated.operations > 1000
    assert allocated.bytes < 1e6
