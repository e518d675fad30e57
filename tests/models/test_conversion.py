"""Weights of other programs become the network's by what a study states, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional

from voxelsoup.common.errors import InputError
from voxelsoup.models import networks
from voxelsoup.models.conversion import Target, converted
from voxelsoup.models.weight_files import Weights
from voxelsoup.study.sections.elsewhere import Conversion
from voxelsoup.study.sections.training import Network

FILE = Path("file.pt")
SMALL = {"init_filters": 2, "blocks_down": [1, 1, 1, 1], "blocks_up": [1, 1, 1, 1]}
DYNUNET = {
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [2, 4, 4],
    "norm_name": ["INSTANCE", {"affine": True}],
    "trans_bias": True,
}


def mednext(kernel: int = 3, channels: int = 2, supervised: bool = False) -> Target:
    network = Network(size="free", kernel_size=kernel, deep_supervision=supervised, arguments=SMALL)
    return Target(network, channels, 2)


def dynunet(channels: int = 2) -> Target:
    return Target(Network(name="DynUNet", arguments=DYNUNET), channels, 2)


def weights_of(target: Target, seed: int = 0) -> Weights:
    with networks.seeded(seed):
        model = networks.build(target.network, target.channels, target.regions)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def convert(weights: Weights, target: Target, **stated: Any) -> Weights:
    return converted(weights, Conversion.model_validate(stated), target, FILE)


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def refusal(weights: Weights, target: Target, **stated: Any) -> InputError:
    with pytest.raises(InputError) as error:
        convert(weights, target, **stated)
    return error.value


def proposed(error: InputError) -> dict[str, str]:
    """The rules that a refusal proposes, as a user would copy them."""
    rules: dict[str, str] = yaml.safe_load(error.fix.split("rename:\n")[1])
    return rules


def as_published(weights: Weights) -> Weights:
    """A MedNeXt's weights as MIC-DKFZ/MedNeXt calls them."""
    names = {"enc_stages": "enc_block_{}", "down_blocks": "down_{}"}
    turned = {"up_blocks": "up_{}", "dec_stages": "dec_block_{}", "out_blocks": "out_{}"}
    found: Weights = {}
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        number, _, behind = rest.partition(".")
        if first in names:
            name = f"{names[first].format(number)}.{behind}"
        elif first in turned:
            place = (4 if first == "out_blocks" else 3) - int(number)
            name = f"{turned[first].format(place)}.{behind}"
        found[name] = tensor
    return found | {"dummy_tensor": torch.ones(1)}


def as_nnunet(weights: Weights) -> Weights:
    """The weights of a DynUNet of three stages as nnU-Net's PlainConvUNet has them."""
    stages = {
        "input_block": "encoder.stages.0.0",
        "downsamples.0": "encoder.stages.1.0",
        "bottleneck": "encoder.stages.2.0",
        "upsamples.0.conv_block": "decoder.stages.0",
        "upsamples.1.conv_block": "decoder.stages.1",
        "upsamples.0.transp_conv.conv": "decoder.transpconvs.0",
        "upsamples.1.transp_conv.conv": "decoder.transpconvs.1",
        "output_block.conv.conv": "decoder.seg_layers.1",
    }
    found: Weights = {"decoder.seg_layers.0.weight": torch.ones(2, 4, 1, 1, 1)}
    for name, tensor in weights.items():
        stage = next((stage for stage in stages if name.startswith(f"{stage}.")), None)
        if stage is None:
            continue
        rest = name.removeprefix(f"{stage}.")
        for place in (1, 2):
            conv, norm = f"convs.{place - 1}.conv.", f"convs.{place - 1}.norm."
            rest = rest.replace(f"conv{place}.conv.", conv).replace(f"norm{place}.", norm)
        found[f"{stages[stage]}.{rest}"] = tensor
        if ".conv.weight" in rest:
            found[f"{stages[stage]}.{rest.replace('weight', 'bias')}"] = torch.ones(len(tensor))
            other = rest.replace(".conv.", ".all_modules.0.")
            found[f"{stages[stage]}.{other}"] = tensor
    inside = {f"decoder.{n}": t for n, t in found.items() if n.startswith("encoder.")}
    return found | inside


def test_weights_of_the_network_itself_stay_as_they_are() -> None:
    for target in (mednext(), dynunet()):
        assert same(convert(weights_of(target), target), weights_of(target))


def test_half_precision_becomes_that_of_the_network() -> None:
    half = {name: tensor.half() for name, tensor in weights_of(mednext()).items()}
    found = convert(half, mednext())
    assert all(torch.equal(found[name], half[name].float()) for name in half)


def test_what_does_not_fit_is_named_by_kind_with_the_first_names_and_their_number() -> None:
    weights = weights_of(mednext())
    for name in list(weights)[4:9]:
        del weights[name]
    weights |= {f"head.{number}": torch.ones(1) for number in range(4)}
    weights["stem.bias"] = torch.ones(7)
    first = list(weights_of(mednext()))[4:7]
    error = refusal(weights, mednext())
    assert error.found == (
        f"does not fit the network: it lacks {', '.join(first)} and 2 more; it has unknown head.0, "
        "head.1, head.2 and 1 more; it has stem.bias [7] instead of [2]"
    )


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.", "network.backbone."])
def test_the_published_mednext_is_refused_with_rules_that_make_it_fit(
    supervised: bool, prefix: str
) -> None:
    target = mednext(supervised=supervised)
    given = as_published(weights_of(mednext(supervised=True)))
    given = {prefix + name: tensor for name, tensor in given.items()}
    rules = proposed(refusal(given, target))
    own = weights_of(mednext(supervised=True))
    expected = {n: t for n, t in own.items() if supervised or not n.startswith("out_blocks")}
    assert same(convert(given, target, rename=rules), expected)


def test_a_plain_nnunet_is_refused_with_rules_that_make_it_a_dynunet() -> None:
    own = weights_of(dynunet())
    given = as_nnunet(own)
    rules = proposed(refusal(given, dynunet()))
    assert same(convert(given, dynunet(), rename=rules), own)


def test_tensors_that_only_agree_in_order_and_shape_are_proposed_with_a_warning() -> None:
    own = weights_of(mednext())
    parts = dict.fromkeys(name.rpartition(".")[0] for name in own)
    numbers = {part: f"layer{number}" for number, part in enumerate(parts)}
    given = {}
    for name, tensor in own.items():
        part, _, last = name.rpartition(".")
        given[f"{numbers[part]}.{last}"] = tensor
    error = refusal(given, mednext())
    assert "by the order and the shapes of the tensors alone" in error.fix
    assert same(convert(given, mednext(), rename=proposed(error)), own)


def test_rules_are_never_applied_by_shape_alone() -> None:
    own = weights_of(mednext())
    swapped = {name.replace("enc_stages.0", "encoder.0"): t for name, t in own.items()}
    assert "it lacks enc_stages.0" in refusal(swapped, mednext()).found
    rules = [{r"^encoder\.": "enc_stages."}]
    assert same(convert(swapped, mednext(), rename=rules), own)


def test_rules_are_applied_in_their_order_and_an_empty_name_leaves_a_tensor_out() -> None:
    own = weights_of(mednext())
    given = {f"net.{name}": tensor for name, tensor in own.items()} | {"loss.w": torch.ones(1)}
    rules = {r"^net\.(.*)$": r"own.\1", r"^own\.": "", r"^loss\..*": ""}
    assert same(convert(given, mednext(), rename=rules), own)


def test_a_rule_that_changes_nothing_and_one_that_merges_tensors_are_refused() -> None:
    own = weights_of(mednext())
    found = refusal(own, mednext(), rename={r"^encoder\.": "enc_stages."}).found
    assert found == "has no tensor that the rule `^encoder\\.` of `rename` changes"
    found = refusal(own, mednext(), rename={r"^stem\.weight": "stem.bias"}).found
    assert found == "has stem.weight and stem.bias, which `rename` both calls stem.bias"


@pytest.mark.parametrize("make", [mednext, dynunet])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("way", ["averaged", "repeated"])
def test_a_first_convolution_of_other_channels_responds_alike_to_channels_that_are_alike(
    make: Any, channels: int, way: str
) -> None:
    given = weights_of(make(channels=2))
    target = make(channels=channels)
    error = refusal(given, target)
    assert error.found.startswith("has 2 input channel(s) in its first convolution")
    assert "first_convolution: averaged" in error.fix
    found = convert(given, target, first_convolution=way)
    changed = [name for name in given if given[name].shape != found[name].shape]
    assert changed
    for name in changed:
        before, now = given[name], found[name]
        if way == "averaged":
            mean = before.mean(1, keepdim=True) * 2 / channels
            torch.testing.assert_close(now, mean.expand_as(now))
        else:
            turns = [before[:, place % 2] for place in range(channels)]
            torch.testing.assert_close(now, torch.stack(turns, 1) * 2 / channels)
        if way == "averaged" or channels % 2 == 0:
            torch.testing.assert_close(now.sum(1), before.sum(1))
    assert all(torch.equal(found[n], given[n]) for n in given if n not in changed)


@pytest.mark.parametrize("kernel", [5, 7])
def test_upkern_grows_kernels_by_trilinear_interpolation_and_nothing_else(kernel: int) -> None:
    given, target = weights_of(mednext(3)), mednext(kernel)
    error = refusal(given, target)
    assert error.found == f"has kernels of 3 voxels, and `network.kernel_size` is {kernel}"
    assert "`upkern: true`" in error.fix
    found = convert(given, target, upkern=True)
    for name, tensor in given.items():
        # As upkern_load_weights of MIC-DKFZ/MedNeXt.
        large = functional.interpolate(tensor, size=3 * [kernel], mode="trilinear") if (
            name.endswith("conv1.weight")
        ) else tensor  # fmt: skip
        assert torch.equal(found[name], large), name


def test_larger_kernels_are_not_made_smaller() -> None:
    error = refusal(weights_of(mednext(5)), mednext(3), upkern=True)
    assert "conv1.weight [2, 1, 5, 5, 5] instead of [2, 1, 3, 3, 3]" in error.found


def test_names_channels_and_kernels_may_differ_together() -> None:
    given = as_published(weights_of(mednext(3, channels=1)))
    target = mednext(5, channels=4)
    rules = proposed(refusal(given, target, first_convolution="averaged", upkern=True))
    found = convert(given, target, rename=rules, first_convolution="averaged", upkern=True)
    assert found["stem.weight"].shape == (2, 4, 1, 1, 1)
    assert found["enc_stages.0.0.conv1.weight"].shape == (2, 1, 5, 5, 5)


def test_other_regions_are_refused() -> None:
    target = Target(mednext().network, 2, 3)
    found = refusal(weights_of(mednext()), target).found
    assert "out_0.conv_out.weight [2, 2, 1, 1, 1] instead of [2, 3, 1, 1, 1]" in found
