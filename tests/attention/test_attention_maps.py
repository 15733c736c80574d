"""What is taken out of a network, and how it is brought back to the image: each step against another computation."""

import nibabel
import numpy as np
import pytest
import torch
import unet_plans
from attention_models import Plan, slices_first, write_model, write_spot
from monai.visualize import GradCAM
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunetv2_eccam.architectures.compared.da_net import DANet, PositionAttention
from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.attention import sources
from nnunetv2_eccam.attention.case import TrainedModel
from nnunetv2_eccam.attention.class_activation import class_activation, deepest_layer
from nnunetv2_eccam.attention.maps import attention_volumes, channel_weights, tile_maps
from nnunetv2_eccam.attention.network import Call, NetworkMaps, record
from nnunetv2_eccam.attention.picture import HeatRows
from nnunetv2_eccam.attention.sources import Source, attended, find_attention, find_sources, sources_of
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay.view import view_of
from nnunetv2_eccam.volumes import read_image, read_labels

CPU = torch.device("cpu")


def network(conv_op=nn.Conv2d, seed=0, **switches) -> ECCaMUNet:
    torch.manual_seed(seed)
    norm = nn.InstanceNorm2d if conv_op is nn.Conv2d else nn.InstanceNorm3d
    made = ECCaMUNet(
        1, 3, n_stages=3, features_per_stage=[4, 6, 8], conv_op=conv_op, kernel_sizes=3, strides=[1, 2, 2],
        n_conv_per_stage=1, n_conv_per_stage_decoder=1, norm_op=norm, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, dilations=[1, 2, 3], **switches,
    )  # fmt: skip
    return made.eval()


@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_columns_of_the_map_that_is_never_held(size, at_once):
    features = torch.randn(2, 16, *size)
    matrix = features.double().flatten(2)
    expected = (matrix.transpose(1, 2) @ matrix * 0.25).softmax(2).sum(1)  # S of eq. 9 as it is written
    found = attended(features, features, 0.25, at_once)
    assert found.shape == (2, *size)
    torch.testing.assert_close(found.flatten(1).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.flatten(1).mean(1), torch.ones(2))


def test_half_precision_does_not_overflow():
    features = 60 * torch.ones(1, 128, 4, 4, dtype=torch.half)
    torch.testing.assert_close(attended(features, features, 1.0), torch.ones(1, 4, 4))
    features = torch.randn(1, 64, 5, 5)
    expected = attended(features, features, 0.2)
    with torch.autocast("cpu", torch.bfloat16):  # as the network's, on a GPU
        assert torch.equal(attended(features, features, 0.2), expected)


def read_from(module, *inputs):
    (source,) = sources_of(module)
    return source.read(Call(module, inputs, module(*inputs)))


@pytest.mark.parametrize("scale", [1.0, "1/sqrt(C)"])
def test_what_is_read_from_sc_is_the_map_by_which_it_gathers(scale):
    module, features = SpatialCorrelation(scale), torch.randn(1, 9, 4, 6)
    # Position i gathers one-hot values, so what it gives is its row of S.
    values = torch.eye(24).reshape(1, 24, 4, 6)
    rows = module(features, values)[0].flatten(1)  # (attended, attending)
    torch.testing.assert_close(read_from(module, features, values)[0].flatten(), rows.sum(1))


def test_what_is_read_from_da_nets_position_attention_is_its_map():
    torch.manual_seed(0)
    module, features = PositionAttention(16), torch.randn(2, 16, 5, 4)
    query, key = module.query(features).flatten(2), module.key(features).flatten(2)
    every = torch.einsum("bdj,bdi->bji", query, key).softmax(-1).sum(1).reshape(2, 5, 4)
    torch.testing.assert_close(read_from(module, features), every)


def test_a_subclass_is_read_as_its_class_and_others_can_be_registered(monkeypatch):
    class Own(SpatialCorrelation):
        pass

    class Squeeze(nn.Module):
        pass

    monkeypatch.setattr(sources, "SOURCES", dict(sources.SOURCES))
    assert sources_of(Own())[0].name == "SC"
    assert sources_of(Squeeze()) == ()
    sources.register(Squeeze, Source("own", "positions", "anything", lambda call: call.output))
    assert sources_of(Squeeze())[0].name == "own"


def hooks_of(module: nn.Module) -> list[int]:
    return [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]


def test_hooks_leave_the_network_as_it_was():
    made, tile = network(), torch.randn(1, 1, 16, 20)
    with torch.no_grad():
        before, state = made(tile), {name: value.clone() for name, value in made.state_dict().items()}
    known = NetworkMaps(made, (16, 20), 1, CPU)
    tile_maps(made, tile, find_sources(made, "positions"), known)
    tile_maps(made, tile, find_attention(made), known)
    class_activation(made, tile, deepest_layer(made, known), 1, True)
    with torch.no_grad():
        assert torch.equal(made(tile), before)
    assert not any(hooks_of(made))
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_hooks_are_gone_after_an_error():
    made, tile = network(), torch.randn(1, 1, 16, 20)

    def fail(call):
        raise KeyError("in the hook")

    with pytest.raises(KeyError):
        record(made, tile, [(made.encoder, lambda call: 0), (made.bottleneck, fail)])
    with pytest.raises(RuntimeError):  # the network's own: one channel too many
        record(made, torch.randn(1, 2, 16, 20), [(made.bottleneck, lambda call: 0)])
    with pytest.raises(RuntimeError):
        NetworkMaps(made, (16, 20), 2, CPU)
    assert not any(hooks_of(made))


def test_the_network_runs_no_further_than_it_must():
    made, called = network(), []
    handle = made.decoder.register_forward_hook(lambda *_: called.append(True))
    record(made, torch.randn(1, 1, 16, 20), [(made.bottleneck.attention, lambda call: 0)])
    handle.remove()
    assert not called


def test_a_module_that_is_not_called_is_named():
    made = network()
    made.spare = nn.Linear(1, 1)
    with pytest.raises(UserError, match="does not call its Linear"):
        record(made, torch.randn(1, 1, 16, 20), [(made.spare, lambda call: 0)])


@pytest.mark.parametrize("residual", [False, True])
def test_attention_is_found_at_whichever_stages_of_whichever_plan_it_sits(residual):
    stages = {"attention_stages": [2, 3]}
    made = build_network(unet_plans.plan(4, residual=residual), (32, 32), 1, 2, False, stages).eval()
    found, tile = find_sources(made, "positions"), torch.randn(1, 1, 32, 32)
    assert [each.source.name for each in found] == ["CoA", "SC", "CoA", "SC"]
    known = NetworkMaps(made, (32, 32), 1, CPU)
    both = tile_maps(made, tile, found, known)
    alone = [tile_maps(made, tile, found[at : at + 2], known) for at in (0, 2)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    assert not torch.equal(alone[0], alone[1])
    assert deepest_layer(made, known) == "bottleneck"


def test_da_net_on_a_tile_that_it_pads():
    made, tile = DANet(1, 2, "resnet18").eval(), torch.randn(1, 1, 44, 48)  # padded to 48
    found, known = find_sources(made, "positions"), NetworkMaps(made, (44, 48), 1, CPU)
    assert [each.path for each in found] == ["position_attention"]
    assert known.places((6, 6)) == ((8, 8), (0, 0))
    maps = tile_maps(made, tile, found, known)
    assert maps.shape == (1, 1, 44, 48)
    assert float(maps.mean()) == pytest.approx(1, abs=0.3)
    assert deepest_layer(made, known) == "classifier.0"  # both attentions together


def impulse_centre(made: nn.Module, module: nn.Module, size, position) -> list[float]:
    """Find the centre of what a position sees, by the gradient of a network whose kernels are all ones."""
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    tile = torch.ones(1, 1, *size, requires_grad=True)
    kept = []
    handle = module.register_forward_hook(lambda _m, _i, output: kept.append(output))
    made(tile)
    handle.remove()
    (gradient,) = torch.autograd.grad(kept[0][(0, slice(None), *position)].sum(), tile)
    grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    weight = gradient[0, 0].double()
    return [float((axis * weight).sum() / weight.sum()) for axis in grid]


@pytest.mark.parametrize("strides", [[1, 2, 2], [[1, 1], [2, 1], [2, 4]]])
def test_a_position_is_where_its_receptive_field_is_centred(strides):
    made = ECCaMUNet(
        1, 1, n_stages=3, features_per_stage=1, conv_op=nn.Conv2d, kernel_sizes=3, strides=strides,
        n_conv_per_stage=1, n_conv_per_stage_decoder=1, channel_correlation=False, spatial_correlation=False,
        multi_scale=False, enhanced_convolution=False,
    ).eval()  # fmt: skip
    size = (64, 64)
    known = NetworkMaps(made, size, 1, CPU)
    with torch.no_grad():
        map_size = made.encoder(torch.zeros(1, 1, *size))[-1].shape[2:]
    position = [n // 2 for n in map_size]
    expected = impulse_centre(made, made.bottleneck, size, position)
    strides, starts = known.places(map_size)
    found = [first + stride * at for first, stride, at in zip(starts, strides, position, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("conv_op", [nn.Conv2d, nn.Conv3d])
def test_a_ramp_stays_a_ramp_when_it_is_enlarged(conv_op):
    made, size = network(conv_op), (18, 20, 22)[: 2 if conv_op is nn.Conv2d else 3]  # padded to 20, 20, 24
    known = NetworkMaps(made, size, 1, CPU)
    map_size = [-(-n // 4) for n in size]
    strides, starts = known.places(map_size)
    for axis, n in enumerate(size):
        places = starts[axis] + strides[axis] * torch.arange(map_size[axis])
        ramp = places.reshape(-1, *[1] * (len(size) - 1 - axis)).expand(1, *map_size)
        voxels = torch.arange(n).float().clamp(places[0], places[-1])
        expected = voxels.reshape(-1, *[1] * (len(size) - 1 - axis)).expand(1, *size)
        torch.testing.assert_close(known.enlarged(ramp), expected)


def test_maps_resized_by_a_function_stand_for_equal_blocks():
    resizing = nn.Sequential(nn.AdaptiveAvgPool2d((4, 8)), nn.Conv2d(1, 1, 1))
    assert NetworkMaps(resizing, (16, 32), 1, CPU).places((4, 8)) == ((4, 4), (1.5, 1.5))


class Evidence(nn.Module):
    """What MONAI's Grad-CAM differentiates in place of a class's score: the mean logit of what is given the label."""

    def __init__(self, made: nn.Module, head: int, exclusive: bool):
        super().__init__()
        self.made, self.head, self.exclusive = made, head, exclusive

    def forward(self, tiles):
        logits = self.made(tiles)
        chosen = logits[:, self.head]
        predicted = logits.argmax(1) == self.head if self.exclusive else chosen > 0
        assert 0 < predicted.sum() < predicted.numel()
        return chosen[predicted].mean().reshape(1, 1)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("layer", ["bottleneck", "encoder.stages.1"])
def test_class_activation_is_that_of_monai(exclusive, layer):
    made, tile = network(seed=3), torch.randn(1, 1, 16, 20)
    monai = GradCAM(Evidence(made, 1, exclusive), f"made.{layer}", upsampler=lambda x: x, postprocessing=lambda x: x)
    found = class_activation(made, tile, layer, 1, exclusive)
    assert not found.requires_grad
    torch.testing.assert_close(found, monai.compute_map(tile, class_idx=0)[:, 0], rtol=1e-4, atol=1e-8)
    assert found.max() > 0


def test_class_activation_is_zero_where_nothing_is_predicted():
    made = network()
    with torch.no_grad():
        list(made.decoder.seg_layers.values())[-1].bias.copy_(torch.tensor([1e3, 0, 0]))
    assert not class_activation(made, torch.randn(1, 1, 16, 20), "bottleneck", 1, True).any()


def test_the_deepest_layer_of_networks_of_other_families():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    def deepest(made):
        return deepest_layer(made, NetworkMaps(made, (16, 16), 1, CPU))

    plain = PlainConvUNet(1, 3, [4, 4, 4], nn.Conv2d, 3, [1, 2, 2], 1, 2, 1, deep_supervision=False)
    assert deepest(plain) == "encoder.stages.2"
    halving = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2)]
    assert deepest(nn.Sequential(*halving)) == "1"  # the one after it gives logits
    with pytest.raises(UserError, match="--layer"):
        deepest(nn.Sequential(nn.Conv2d(1, 2, 1)))


@pytest.mark.parametrize(("reader", "orientation"), [
    ("SimpleITKIO", "LPI"), ("NibabelIO", "SAR"), ("NibabelIOWithReorient", "PIR"), ("SimpleITKIOWithReorient", "ILA")
])  # fmt: skip
def test_maps_come_back_as_nnunets_segmentations_do(tmp_path, reader, orientation):
    """From a case with another spacing than the plan's, an empty margin, and axes in another order."""
    plan = Plan(reader=reader, transpose=slices_first(orientation, reader), spacing=(1.0, 1.2), patch=(24, 32))
    model = TrainedModel(write_model(tmp_path / "model", plan))
    path = write_spot(tmp_path, orientation, (0.9, 1.5, 3.0), oblique=True).path
    prepared, predictor = model.prepare([read_image(path)]), model._predictor
    assert model.slicing_axis(read_image(path)) == np.argmax(nibabel.load(path).header.get_zooms())
    manager = predictor.configuration_manager
    _, _, properties = manager.preprocessor_class(verbose=False).run_case(
        [str(path)], None, predictor.plans_manager, manager, predictor.dataset_json
    )
    logits = np.random.default_rng(0).normal(size=(2, *prepared.data.shape[1:])).astype(np.float32)
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits.copy()), predictor.plans_manager, manager, predictor.label_manager, properties
    )
    writer = predictor.plans_manager.image_reader_writer_class()
    writer.write_seg(segmentation, str(tmp_path / "theirs.nii.gz"), properties)
    theirs = np.asarray(nibabel.load(tmp_path / "theirs.nii.gz").dataobj)
    mine = model.restore(prepared, logits).argmax(0)
    assert 0 < theirs.mean() < 1
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("plan", [Plan(patch=(32, 24)), Plan(patch=(4, 24, 32), spacing=(3.0, 1.0, 1.0))])
def test_tiles_are_merged_as_nnunet_merges_logits(tmp_path, plan):
    model = TrainedModel(write_model(tmp_path / "model", plan))
    data = torch.randn(1, 5, 50, 30)
    found = model.merged(data, lambda tile: model.network(tile).detach())
    predictor = nnUNetPredictor(device=CPU, use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model.folder), (0,), "checkpoint_final.pth")
    expected = predictor.predict_sliding_window_return_logits(data).float().numpy()
    assert found.shape == expected.shape
    # At the edge nnU-Net's weights are so small that half precision rounds weighted logits to zero.
    inner = (slice(None), slice(1, -1), slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(found[inner], expected[inner], atol=5e-3 * np.abs(expected).max())


def test_all_layers_of_the_api_in_three_dimensions_and_with_regions(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    plan = Plan(patch=(4, 32, 32), spacing=(3.0, 1.0, 1.0), labels=labels)
    folder = write_model(tmp_path / "model", plan)
    model_json = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(model_json[:-1] + ', "regions_class_order": [1, 2]}')
    weights = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    heads = [name for name in weights["network_weights"] if ".seg_layers." in name]
    for name in heads:  # two regions, no background
        weights["network_weights"][name] = weights["network_weights"][name][1:]
    torch.save(weights, folder / "fold_0" / "checkpoint_final.pth")
    model = TrainedModel(folder)
    assert model.heads == {"whole": 0, "core": 1}
    assert not model.exclusive_labels
    prepared = model.prepare([read_image(write_spot(tmp_path).path)])
    volumes = [
        volume
        for what in ("spatial", "activation", "cam")
        for volume in attention_volumes(model, prepared, what, label="core")
    ]
    assert [volume.name for volume in volumes] == ["CoA", "SC", "activation", "cam"]
    assert all(volume.voxels.shape == (78, 70, 9) and volume.voxels.max() > 0 for volume in volumes)
    (weights,) = channel_weights(model, prepared).values()
    assert weights.shape[1] == 8


def test_slices_are_where_the_reference_is_or_evenly_spread(tmp_path):
    spot = write_spot(tmp_path)
    image, mask = read_image(spot.path), read_labels(spot.mask)
    view = view_of(image, "axial")
    for how, numbers in (
        ({"reference": mask, "count": 2}, [4, 5]), ({"count": 3}, [1, 4, 7]), ({"count": 1}, [4]),
        ({"numbers": [8, 2]}, [8, 2]),
    ):  # fmt: skip
        assert [view.file_number(index) for index in HeatRows(image, view, **how).indices] == numbers
