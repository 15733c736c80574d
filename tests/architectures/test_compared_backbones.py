"""The compared networks with a backbone of their own: against formulas, torchvision, segmentation_models_pytorch and
the sizes that their authors state. What all networks have to do is in ``tests/systems``."""

import importlib
import sys

import pytest
import torch
from naive_formulas import EXACT, dense, linear_enlargement, naive_convolution, naive_layer, randomised, sample
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from unet_plans import small_arguments

from nnunetv2_eccam.architectures.compared.ce_net import CENet, DenseAtrousConvolution, ResidualMultiKernelPooling
from nnunetv2_eccam.architectures.compared.da_net import ChannelAttention, DANet, PositionAttention
from nnunetv2_eccam.architectures.compared.deeplab_v3_plus import DeepLabV3Plus, PooledBatchNorm2d
from nnunetv2_eccam.architectures.compared.hr_net import HRNet, HRNetV2Head
from nnunetv2_eccam.architectures.compared.mcdal_net import DualAttention
from nnunetv2_eccam.architectures.compared.msu_net import MSUNet
from nnunetv2_eccam.architectures.compared.network import segmentation_layer
from nnunetv2_eccam.architectures.compared.segformer import EfficientSelfAttention, SegFormer
from nnunetv2_eccam.architectures.compared.unet_plus_plus import UNetPlusPlus
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.errors import UserError

AUTHORS_UNET = {
    **small_arguments(2, nn.BatchNorm2d, [32, 64, 128, 256, 512]), "downsampling": "max_pool", "nonlin": nn.ReLU
}  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "arguments", "millions"),
    [
        (CENet, (3, 1), "29.003093"),  # the authors' code, github.com/Guzaiwang/CE-Net
        (HRNet, (3, 19, 48), "65.9"),  # Wang et al., TPAMI 2021, on Cityscapes
        (SegFormer, (3, 150), "27.5"),  # its paper's table on ADE20K
        # "Total params" in keras/helper_functions.py of the authors' code, without norm.
        (UNetPlusPlus, (UNetPlan(**{**AUTHORS_UNET, "norm_op": None}), 1, 1), "9.041601"),
        (MSUNet, (UNetPlan(**AUTHORS_UNET), 1, 1), "47.084545"),  # the authors' code, github.com/CN-zdy/MSU_Net
    ],
)
def test_it_has_the_authors_number_of_parameters(cls, arguments, millions):
    if cls is SegFormer:
        pytest.importorskip("segmentation_models_pytorch")
    with torch.device("cpu" if cls is SegFormer else "meta"):
        network = cls(*arguments)
    counted = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert f"{counted:.{len(millions.split('.')[1])}f}" == millions


# --- CE-Net -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_ce_nets_dense_atrous_convolution_sums_the_four_cascades():
    block, x = DenseAtrousConvolution(3).double(), sample(2, 3, 9, 8)

    def cascade(*rates):
        features = x
        for rate in rates:
            conv = getattr(block, f"rate_{rate}")
            features = naive_convolution(features, conv.weight, conv.bias, 1, rate)
        return features

    expected = x + cascade(1).relu()
    for rates in ((3,), (1, 3), (1, 3, 5)):
        expected = expected + naive_convolution(cascade(*rates), block.pointwise.weight, block.pointwise.bias).relu()
    torch.testing.assert_close(block(x), expected, **EXACT)


@pytest.mark.parametrize("size", [(16, 13), (7, 5), (1, 6)])
@torch.no_grad()
def test_ce_nets_multi_kernel_pooling_appends_four_summaries(size):
    """Also where the map is smaller than a window: the window is then cut to the map."""
    block, x = ResidualMultiKernelPooling(3).double(), sample(2, 3, *size)
    maps = []
    for kernel in (2, 3, 5, 6):
        height, width = (min(kernel, n) for n in size)
        pooled = x.unfold(2, height, height).unfold(3, width, width).amax((-2, -1))
        maps.append(linear_enlargement(dense(block.summarise, pooled.movedim(1, -1)).movedim(-1, 1), size))
    torch.testing.assert_close(block(x), torch.cat([*maps, x], 1), **EXACT)


@torch.no_grad()
def test_ce_nets_encoder_is_torchvisions_resnet34_and_its_maps_are_added():
    """The authors' backbone: the same parameters by name, and the same maps. A silent level passes its skip on."""
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.resnet34(weights=None).eval()
    network = CENet(3, 1).eval()
    network.encoder.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    inputs: list[torch.Tensor] = []
    for level in network.levels:
        nn.init.zeros_(level[-2].weight)
        level.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    image = sample(1, 3, 64, 96).float()
    network(image)
    maps = [reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))]
    for stage in (1, 2, 3, 4):
        maps.append(getattr(reference, f"layer{stage}")(maps[-1]))
    torch.testing.assert_close(network.encoder(image)[-1], maps[-1])
    for given, skip in zip(inputs[1:], reversed(maps[1:-1]), strict=True):
        torch.testing.assert_close(given, skip)


# --- DA-Net -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_da_nets_position_attention_is_the_explicit_sum_and_holds_no_map_of_all_pairs():
    attention, features = PositionAttention(16).double(), sample(2, 16, 5, 7)
    torch.testing.assert_close(attention(features), features)  # it begins as the identity
    attention.scale.fill_(0.7)
    positions = features.flatten(2).transpose(1, 2)
    query, key, value = (dense(conv, positions) for conv in (attention.query, attention.key, attention.value))
    gathered = torch.einsum("bji,bic->bcj", torch.einsum("bjd,bid->bji", query, key).softmax(-1), value)
    expected = 0.7 * gathered.reshape(features.shape) + features
    torch.testing.assert_close(attention(features), expected, **EXACT)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # it never has the map, and refuses what it cannot take
        fused = attention.float()(features.float())
    torch.testing.assert_close(fused.double(), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_da_nets_channel_attention_is_the_explicit_sum_over_the_least_alike():
    attention, features = ChannelAttention().double(), sample(2, 16, 5, 7)
    attention.scale.fill_(-0.4)
    flat = features.flatten(2)
    weights = (-torch.einsum("bjn,bin->bji", flat, flat)).softmax(-1)  # the maximum that the authors add cancels
    gathered = torch.einsum("bji,bin->bjn", weights, flat).reshape(features.shape)
    torch.testing.assert_close(attention(features), -0.4 * gathered + features, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "attention", [PositionAttention(16), ChannelAttention(), DualAttention(16, LayerOps(nn.Conv2d))]
)
def test_attentions_of_large_activations_stay_finite_and_keep_the_type_in_half_precision(attention, dtype):
    """DA-Net's, and MCDALNet's, which has both."""
    for name, parameter in attention.named_parameters():
        if name.endswith(("scale", "factor")):
            nn.init.constant_(parameter, 0.7)
    large = (1000 * sample(2, 16, 5, 7)).to(dtype).requires_grad_()  # products pass 65504
    with torch.autocast("cpu", dtype):
        output = attention(large)
    output.float().mean().backward()
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert large.grad.isfinite().all()


@torch.no_grad()
def test_da_nets_attentions_are_added_classified_and_enlarged():
    torch.manual_seed(0)
    network = DANet(1, 3, "resnet18").double().eval()
    assert all(module.weight.all() for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    image = sample(1, 1, 32, 48)
    features = network.backbone(image)[-1]
    assert features.shape[2:] == (4, 6)  # an eighth: the last two stages are dilated
    assert [block.conv2.dilation[0] for stage in "34" for block in getattr(network.backbone, f"layer{stage}")] == [
        2, 2, 4, 4,
    ]  # fmt: skip
    coarse = 0
    for name in ("position", "channel"):
        attention = getattr(network, f"{name}_attention")
        attention.scale.fill_(0.5)
        coarse = coarse + getattr(network, f"{name}_conv")(attention(getattr(network, f"{name}_reduction")(features)))
    coarse = dense(network.classifier[1].seg_layers, coarse.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(network(image), linear_enlargement(coarse, [32, 48], corners=True))


# --- HR-Net -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_hr_nets_head_is_a_linear_map_of_all_branches_at_the_highest_resolution():
    channels = (2, 4, 8, 16)
    head = randomised(HRNetV2Head(channels, 3)).eval()
    branches = [sample(2, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate(channels)]
    mixed = naive_layer(head.mixing, torch.cat([linear_enlargement(branch, (16, 24)) for branch in branches], 1))
    expected = dense(head.classifier.seg_layers, mixed.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(head(branches), expected, **EXACT)


def test_hr_nets_fusions_are_bilinear_and_its_four_branches_reach_the_head_before_any_classifier():
    with torch.device("meta"):
        network = HRNet(1, 2).eval()
    enlargements = [module for module in network.modules() if isinstance(module, nn.Upsample)]
    assert len(enlargements) == 1 * 1 + 4 * 3 + 3 * 6
    assert {(module.mode, module.align_corners) for module in enlargements} == {("bilinear", False)}
    branches = network.backbone(torch.zeros(1, 1, 96, 64, device="meta"))
    assert [tuple(branch.shape[1:]) for branch in branches] == [(18, 24, 16), (36, 12, 8), (72, 6, 4), (144, 3, 2)]


# --- DeepLabV3+ and SegFormer -------------------------------------------------------------------------


def in_segmentation_models_pytorch(name: str, backbone: str, **more):
    smp = pytest.importorskip("segmentation_models_pytorch")
    network = getattr(smp, name)(backbone, encoder_weights=None, in_channels=1, classes=2, **more)
    network.segmentation_head[0] = segmentation_layer(network.segmentation_head[0])  # another name, the same layer
    return network


def test_deeplab_with_larger_batches_is_segmentation_models_pytorchs_network_with_the_authors_settings():
    settings = {"encoder_output_stride": 16, "decoder_atrous_rates": (6, 12, 18), "decoder_aspp_dropout": 0.1}
    original = in_segmentation_models_pytorch("DeepLabV3Plus", "resnet18", **settings)
    ours = DeepLabV3Plus(1, 2, backbone="resnet18")
    ours.model.load_state_dict(original.state_dict())
    assert sum(isinstance(module, PooledBatchNorm2d) for module in ours.modules()) == 1
    image = torch.randn(2, 1, 64, 64)
    for mode in (True, False):  # after a training step, the running statistics agree as well
        outputs = []
        for network in (ours, original):
            torch.manual_seed(0)  # of the dropout
            outputs.append(network.train(mode)(image))
        torch.testing.assert_close(*outputs)


def test_the_norm_of_a_pooled_map_uses_the_running_statistics_for_single_values_and_keeps_them():
    norm = randomised(PooledBatchNorm2d(2))
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    features = sample(1, 2, 1, 1)
    expected = (features.flatten() - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(features).flatten(), expected)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(norm.running_var, variance)


def test_segformer_is_segmentation_models_pytorchs_network():
    original = in_segmentation_models_pytorch("Segformer", "mit_b0", decoder_segmentation_channels=16)
    ours = SegFormer(1, 2, backbone="mit_b0", decoder_channels=16)
    ours.model.load_state_dict(original.state_dict())
    replaced = sum(isinstance(module, EfficientSelfAttention) for module in ours.modules())
    assert replaced == 8  # MiT-B0: two blocks in each of four stages
    image = sample(1, 1, 64, 96)
    torch.testing.assert_close(ours.double().eval()(image), original.double().eval()(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_segformers_attention_does_not_overflow_half_precision(dtype):
    mix_transformer = pytest.importorskip("segmentation_models_pytorch.encoders.mix_transformer")
    library = mix_transformer.Attention(32, num_heads=1)
    nn.init.eye_(library.q.weight)
    library.kv.weight.data = torch.eye(32).repeat(2, 1)
    tokens = torch.randn(1, 6, 32) * 200  # dot products of a million, half precision ends at 65504
    expected = library(tokens, 2, 3)
    with torch.autocast("cpu", dtype=dtype):
        overflowing, ours = library(tokens, 2, 3), EfficientSelfAttention(library)(tokens, 2, 3)
    assert dtype != torch.float16 or not overflowing.isfinite().all()
    torch.testing.assert_close(ours.float(), expected, rtol=0.05, atol=1.0)


@pytest.mark.parametrize(("network", "title"), [(DeepLabV3Plus, r"DeepLabV3\+"), (SegFormer, "SegFormer")])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, network, title):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(
        UserError, match=title + r" needs segmentation-models-pytorch: pip install 'nnunetv2-eccam\[compared\]'$"
    ):
        network(1, 2)


def test_a_package_that_is_there_but_broken_keeps_its_own_message(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="timm"):
        SegFormer(1, 2)
