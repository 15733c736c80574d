"""SegFormer: the parameters that its paper states, and the attention that replaces the library's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_eccam.architectures.compared.network import segmentation_layer
from nnunetv2_eccam.architectures.compared.segformer import EfficientSelfAttention, SegFormer

smp = pytest.importorskip("segmentation_models_pytorch")
mix_transformer = pytest.importorskip("segmentation_models_pytorch.encoders.mix_transformer")


@pytest.fixture
def small():
    """The network with the smallest encoder, without stochastic depth."""
    network = SegFormer(1, 2, backbone="mit_b0", decoder_channels=16)
    for module in network.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return network


def test_the_papers_setting_has_its_number_of_parameters():
    # Source: 27.5 million for MiT-B2 in the paper's table on ADE20K: three channels, 150 classes, C = 768.
    assert sum(p.numel() for p in SegFormer(3, 150).parameters()) == pytest.approx(27.5e6, rel=0.005)


@pytest.mark.parametrize("reduction", [1, 2])
def test_the_attention_is_softmax_of_scaled_dot_products(reduction):
    library = mix_transformer.Attention(12, num_heads=3, qkv_bias=True, sr_ratio=reduction).double()
    for p in library.parameters():
        nn.init.normal_(p, std=0.5)  # far from uniform attention
    tokens = torch.randn(2, 4 * 6, 12, dtype=torch.float64)

    reduced = tokens
    if reduction > 1:
        blocks = tokens.view(2, 2, 2, 3, 2, 12).permute(0, 1, 3, 5, 2, 4)  # (B, 2, 3, C, reduction, reduction)
        reduced = torch.einsum("bhwcxy,ocxy->bhwo", blocks, library.sr.weight) + library.sr.bias
        reduced = library.norm(reduced.flatten(1, 2))
    q = tokens @ library.q.weight.T + library.q.bias
    k, v = (reduced @ library.kv.weight.T + library.kv.bias).split(12, -1)
    q, k, v = (part.unflatten(-1, (3, 4)) for part in (q, k, v))  # (B, N, heads, d)
    weights = torch.softmax(torch.einsum("bnhd,bmhd->bhnm", q, k) / 4**0.5, -1)
    expected = torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2) @ library.proj.weight.T + library.proj.bias

    torch.testing.assert_close(EfficientSelfAttention(library)(tokens, 4, 6), expected)
    torch.testing.assert_close(library(tokens, 4, 6), expected)


def test_it_is_segmentation_models_pytorchs_network():
    original = smp.Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=16, in_channels=1, classes=2)
    ours = SegFormer(1, 2, backbone="mit_b0", decoder_channels=16)
    original.segmentation_head[0] = segmentation_layer(original.segmentation_head[0])  # another name, the same layer
    ours.model.load_state_dict(original.state_dict())
    image = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    torch.testing.assert_close(ours.double().eval()(image), original.double().eval()(image))


def test_every_attention_is_replaced(small):
    replaced = sum(isinstance(m, EfficientSelfAttention) for m in small.modules())
    assert replaced == 8  # MiT-B0: two blocks in each of four stages
    assert not any(isinstance(m, mix_transformer.Attention) for m in small.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_activations_do_not_overflow_half_precision(dtype):
    library = mix_transformer.Attention(32, num_heads=1)
    nn.init.eye_(library.q.weight)
    nn.init.constant_(library.kv.weight, 0.0)
    with torch.no_grad():
        library.kv.weight[:32] = torch.eye(32)
        library.kv.weight[32:] = torch.eye(32)
    tokens = torch.randn(1, 6, 32) * 200  # dot products of a million, half precision ends at 65504
    expected = library(tokens, 2, 3)
    with torch.autocast("cpu", dtype=dtype):
        overflowing, ours = library(tokens, 2, 3), EfficientSelfAttention(library)(tokens, 2, 3)
    assert dtype != torch.float16 or not overflowing.isfinite().all()
    torch.testing.assert_close(ours.float(), expected, rtol=0.05, atol=1.0)
