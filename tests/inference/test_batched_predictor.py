"""The batched predictor against nnU-Net's own: logits, how the batch is chosen, what happens without memory."""

import contextlib
import warnings
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import threads_for_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from small_training import make_trainer
from torch import nn
from unet_plans import INSTANCE_NORMS, small_arguments

from nnunetv2_eccam.inference.batched_predictor import LARGEST_BATCH, BatchedPredictor, is_out_of_memory
from nnunetv2_eccam.inference.validation import batched_validation
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM

PATCH = {2: [16, 24], 3: [8, 16, 16]}
IMAGE = {2: (3, 29, 40), 3: (11, 21, 30)}


def unet(dimension: int) -> nn.Module:
    torch.manual_seed(0)
    return PlainConvUNet(1, num_classes=3, **small_arguments(dimension, INSTANCE_NORMS[dimension], [4, 6, 8]))


class Lopsided(nn.Module):
    """A cheap network that no mirroring leaves as it is, and that says which batches it was given.

    Args:
        memory: samples that fit; a larger batch raises what CUDA raises.
    """

    def __init__(self, dimension: int = 2, memory: float = float("inf"), channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(1)
        conv, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[dimension - 2]
        self.layers = nn.Sequential(conv(channels, 2, 3, padding=1), norm(2, affine=True), nn.ReLU(), conv(2, 3, 2))
        self.memory = memory
        self.batches: list[int] = []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layers(nn.functional.pad(x, [0, 1] * (x.ndim - 2)))


def predictor_of(predictor_class, network, patch, mirror_axes=None, weights=None, **options):
    with contextlib.redirect_stdout(None):
        predictor = predictor_class(device=torch.device("cpu"), allow_tqdm=False, **options)
    plans = PlansManager({"configurations": {"it": {"patch_size": list(patch), "architecture": {}}}})
    dataset = {"labels": {"background": 0, "organ": 1, "lesion": 2}}
    predictor.manual_initialization(
        network, plans, plans.get_configuration("it"), weights or [network.state_dict()], dataset, "it", mirror_axes
    )
    return predictor


def assert_as_nnunets(network, image, patch, mirror_axes=None, batch_size=None, **options) -> BatchedPredictor:
    """Compare logits; both are sums in half precision, whose last bits a batch's own float32 may tip."""
    expected = predictor_of(nnUNetPredictor, network, patch, mirror_axes, **options)
    expected = expected.predict_logits_from_preprocessed_data(image)
    if isinstance(network, Lopsided):
        network.batches.clear()
    predictor = predictor_of(BatchedPredictor, network, patch, mirror_axes, batch_size=batch_size, **options)
    logits = predictor.predict_logits_from_preprocessed_data(image)
    assert logits.dtype == expected.dtype
    assert logits.shape == expected.shape == (3, *image.shape[1:])
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    return predictor


@given(
    dimension=st.sampled_from([2, 3]),
    channels=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14)),
    patch=st.tuples(st.integers(2, 5), st.integers(2, 6), st.integers(2, 6)),
    axes=st.sampled_from([None, (0,), (1,), (0, 1), (0, 1, 2)]),
    batch_size=st.one_of(st.none(), st.integers(1, 23)),
    gaussian=st.booleans(),
    mirroring=st.booleans(),
    step=st.sampled_from([0.5, 0.8, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_any_image_patch_and_batch_gives_nnunets_logits(
    dimension, channels, size, patch, axes, batch_size, gaussian, mirroring, step
):
    if axes is not None:
        axes = tuple(axis for axis in axes if axis < dimension)
    torch.manual_seed(sum(size))
    options = {"use_gaussian": gaussian, "use_mirroring": mirroring, "tile_step_size": step}
    network = Lopsided(dimension, channels=channels)
    patch = patch[3 - dimension :]
    assert_as_nnunets(network, torch.randn(channels, *size), patch, axes, batch_size, **options)
    assert max(network.batches) <= (batch_size or LARGEST_BATCH)


def test_one_sample_at_a_time_is_nnunets_to_the_bit():
    network, image = Lopsided(), torch.randn(1, *IMAGE[2])
    results = [
        predictor_of(cls, network, PATCH[2], (0, 1), **kw).predict_sliding_window_return_logits(image)
        for cls, kw in ((nnUNetPredictor, {}), (BatchedPredictor, {"batch_size": 1}))
    ]
    assert torch.equal(*results)


def test_the_wrapper_for_several_gpus_is_left_out():
    """In its place batch norm's buffers would be sent around at every call, which other processes wait for."""
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)).eval()
    image = torch.randn(1, *IMAGE[2])
    expected = predictor_of(BatchedPredictor, network, PATCH[2], batch_size=2).predict_sliding_window_return_logits(
        image
    )
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        wrapped.forward = None
        logits = predictor_of(BatchedPredictor, wrapped, PATCH[2], batch_size=2).predict_sliding_window_return_logits(
            image
        )
    finally:
        dist.destroy_process_group()
    assert torch.equal(logits, expected)


def test_infinite_logits_are_refused_as_nnunet_refuses_them():
    class Huge(Lopsided):
        def forward(self, x):
            return 1e6 * super().forward(x)

    for predictor_class in (nnUNetPredictor, BatchedPredictor):
        with pytest.raises(RuntimeError, match="inf"):
            predictor_of(predictor_class, Huge(), PATCH[2]).predict_sliding_window_return_logits(
                torch.randn(1, *IMAGE[2])
            )


@pytest.mark.parametrize(
    ("batch_size", "axes", "expected"),
    [
        (8, (0, 1), [8, 8, 4]),  # five tiles of four copies, two at a time
        (11, (0, 1), [8, 8, 4]),  # whole tiles only
        (3, (0, 1), [3, 1] * 5),  # copies of one tile
        (3, None, [3, 2]),
        (64, (0,), [10]),
    ],
)
def test_batches_hold_whole_tiles_or_copies_of_one(batch_size, axes, expected):
    network = Lopsided()
    assert_as_nnunets(network, torch.randn(1, 5, 16, 24), PATCH[2], axes, batch_size)
    assert network.batches == expected


@pytest.mark.parametrize(
    ("device", "patch", "samples"),
    [
        ("cpu", [64, 64], 8),
        ("cpu", [192, 192], 1),  # as nnU-Net
        ("cpu", [8, 8], 64),
        ("cuda", [192, 192], 64),
        ("cuda", [512, 512], 16),
        ("cuda", [128, 128, 128], 2),
        ("cuda", [192, 256, 256], 1),
    ],
)
def test_device_and_patch_decide_how_large_a_batch_is(device, patch, samples):
    predictor = predictor_of(BatchedPredictor, Lopsided(), patch)
    predictor.device = torch.device(device)
    assert predictor.samples_at_once == samples
    predictor.batch_size = 3
    assert predictor.samples_at_once == 3


def test_out_of_memory_halves_the_batch_and_goes_on():
    image = torch.randn(1, 6, 16, 24)
    network = Lopsided(memory=5)
    predictor = assert_as_nnunets(network, image, PATCH[2], (0, 1), batch_size=16)
    assert network.batches == [16, 8, *[4] * 6]
    predictor.predict_sliding_window_return_logits(image)
    assert network.batches[8:] == [4] * 6  # it is remembered


def test_what_no_batch_can_mend_is_an_error():
    class Broken(Lopsided):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    image = torch.randn(1, *IMAGE[2])
    with pytest.raises(torch.OutOfMemoryError):
        predictor_of(BatchedPredictor, Lopsided(memory=0), PATCH[2]).predict_sliding_window_return_logits(image)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predictor_of(BatchedPredictor, Broken(), PATCH[2]).predict_sliding_window_return_logits(image)
    with pytest.raises(ValueError, match="tiles have 2 axes"):
        predictor_of(BatchedPredictor, Lopsided(), PATCH[2], (0, 2)).predict_sliding_window_return_logits(image)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        predictor_of(BatchedPredictor, Lopsided(), PATCH[2], batch_size=0)


@pytest.mark.parametrize(
    "message",
    ["MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"],
)
def test_other_devices_words_for_missing_memory_are_known(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_nnunets_second_attempt_has_the_memory_of_the_first():
    """Frames of the failed attempt must not keep the image's results alive while it is tried again."""
    kept: list[weakref.ref] = []

    class Noting(BatchedPredictor):
        def _predict_tiles(self, images, places, sums, weight):
            alive.extend(reference() for reference in kept)
            kept.extend(map(weakref.ref, sums[0]))
            super()._predict_tiles(images, places, sums, weight)

    class FailingOnce(Lopsided):
        def forward(self, x):
            activations = torch.zeros(3)
            kept.append(weakref.ref(activations))
            if len(kept) == 3:
                raise RuntimeError("no luck")
            return super().forward(x)

    alive: list[object] = []
    predictor = predictor_of(Noting, FailingOnce(), PATCH[2])
    predictor.perform_everything_on_device = True
    predictor.predict_images([torch.randn(1, 1, 16, 24)])
    assert alive == [None, None, None]


def test_nnunets_second_attempt_is_not_bound_to_the_firsts_batch():
    """With the results on the CPU there is more memory for the network."""

    class Crowded(Lopsided):
        def forward(self, x):
            self.memory = 8 if 1 in self.batches else 0  # until nnU-Net has given up having all on the device
            return super().forward(x)

    network = Crowded()
    predictor = predictor_of(BatchedPredictor, network, PATCH[2], batch_size=4)
    predictor.perform_everything_on_device = True
    predictor.predict_sliding_window_return_logits(torch.randn(1, 8, 16, 24))
    assert network.batches == [4, 2, 1, 4, 4]


def test_a_compiled_network_is_compiled_for_one_batch_size_only():
    shapes = []

    def backend(graph, inputs):
        shapes.append(tuple(inputs[-1].shape))
        return graph

    network = unet(2)
    image = torch.randn(1, 21, 16, 24)
    expected = predictor_of(nnUNetPredictor, network, PATCH[2], (0, 1)).predict_sliding_window_return_logits(image)
    compiled = torch.compile(network, backend=backend)
    predictor = predictor_of(BatchedPredictor, compiled, PATCH[2], (0, 1), batch_size=8)
    for part in (image[:, :7], image):  # neither is a whole number of batches
        logits = predictor.predict_sliding_window_return_logits(part)
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    assert len(shapes) == 1


@pytest.mark.parametrize(
    ("device", "compiled", "samples", "length"),
    [
        ("cpu", False, 5, 5),
        ("cpu", True, 5, 16),
        ("cuda", False, 9, 16),
        ("cuda", False, 5, 8),
        ("cuda", False, 1, 1),
        ("cuda", True, 1, 16),
        ("cuda", False, 20, 20),
    ],
)
def test_a_part_of_a_batch_is_filled_up_to_few_sizes(device, compiled, samples, length):
    predictor = predictor_of(BatchedPredictor, Lopsided(), PATCH[2], (0, 1))
    predictor.batch_size = 19  # four whole tiles
    predictor.device = torch.device(device)
    assert predictor._padded_length(samples, compiled) == length


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("dimension", [2, 3])
def test_on_a_gpu_the_logits_are_nnunets(dimension, on_device):
    network, image = unet(dimension), torch.randn(1, *[2 * n for n in IMAGE[dimension]])
    logits = []
    for predictor_class in (nnUNetPredictor, BatchedPredictor):
        predictor = predictor_of(predictor_class, network, PATCH[dimension], tuple(range(dimension)))
        predictor.device, predictor.perform_everything_on_device = torch.device("cuda"), on_device
        logits.append(predictor.predict_logits_from_preprocessed_data(image))
    torch.testing.assert_close(*logits, rtol=1e-2, atol=1e-2 * float(logits[0].abs().max()))
    assert predictor.samples_at_once > 1


def test_validation_uses_the_batched_predictor_and_writes_the_same_segmentations(nnunet_base, small_dataset):
    torch.manual_seed(0)
    trainer = make_trainer(trainer_module.nnUNetTrainer, nnunet_base, small_dataset())
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1)  # as the first step of training sets it
    trainer.network.decoder.seg_layers[-1].weight.data.mul_(20)  # of one mind, as a trained network is
    batches: list[int] = []
    folder = Path(trainer.output_folder, "validation")
    handle = trainer.network.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    found = {}
    for name, context in (("nnunet", contextlib.nullcontext()), ("batched", batched_validation())):
        batches.clear()
        with context, threads_for_processes(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.perform_actual_validation()
        found[name] = {p.name: nibabel.load(p).get_fdata() for p in folder.glob("*.nii.gz")}, max(batches)
        (folder / "summary.json").unlink()
    handle.remove()
    assert found["nnunet"][1] == 1
    assert found["batched"][1] > 1
    assert found["nnunet"][0].keys() == found["batched"][0].keys() != set()
    for case, expected in found["nnunet"][0].items():
        assert len(np.unique(expected)) > 1
        assert np.mean(found["batched"][0][case] != expected) < 1e-3
    assert trainer_module.nnUNetPredictor is nnUNetPredictor


@pytest.mark.parametrize("batches", [True, False])
def test_our_trainers_validate_with_it_unless_a_subclass_says_no(monkeypatch, batches):
    seen = []

    def validate(self, save_probabilities):
        seen.append((trainer_module.nnUNetPredictor, save_probabilities))

    monkeypatch.setattr(trainer_module.nnUNetTrainer, "perform_actual_validation", validate)
    trainer = type("Mine", (nnUNetTrainerECCaM,), {"batches_validation": batches})
    trainer.perform_actual_validation(object.__new__(trainer), True)
    assert seen == [(BatchedPredictor if batches else nnUNetPredictor, True)]
    assert trainer_module.nnUNetPredictor is nnUNetPredictor
