"""``nnUNetTrainerECCaM``: EC-CaM-UNet and its side-output loss under nnU-Net's own recipe."""

import dataclasses
import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.from_plans import build_network, network_arguments, not_followed
from nnunetv2_eccam.architectures.origin import plain
from nnunetv2_eccam.architectures.padding import PadsToMultiple, padded_size
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.inference.validation import batched_validation
from nnunetv2_eccam.losses.side_output import DiceAndCrossEntropy, SideOutputLoss, Supervision
from nnunetv2_eccam.systems import EC_CAM_UNET, System
from nnunetv2_eccam.trainers.attention_state import attention_state, is_wanted, sentences
from nnunetv2_eccam.trainers.checkpoints import check_continues, read_checkpoint, unwrapped
from nnunetv2_eccam.trainers.start_warnings import boxed, continuation_warning, fold_warning, slicing_warning


class nnUNetTrainerECCaM(nnUNetTrainer):
    """Train EC-CaM-UNet as nnU-Net trains its own network.

    Works on any configuration: on nnU-Net's own (its U-Net's stages become EC-CaM-UNet's) and on those that
    ``nnUNetv2_eccam plans`` adds. Only the network and the loss differ from ``nnUNetTrainer``; data,
    augmentation, optimiser and schedule are nnU-Net's.

    A variant is a subclass that sets the attributes below; the constructor's arguments stay nnU-Net's,
    which reads them by name. The compared systems are such subclasses, made by
    :mod:`nnunetv2_eccam.trainers.by_name`.

    Raises:
        UserError: the system does not work on as many axes as the configuration has.
    """

    system: ClassVar[System] = EC_CAM_UNET
    """Which of the paper's systems is trained."""

    network_switches: ClassVar[Mapping[str, Any]] = {}
    """Arguments of ``ECCaMUNet`` that go before the configuration's."""

    max_stages: ClassVar[int | None] = None
    """At most so many of the stages that nnU-Net's own configurations have. All of them, by measurement: the
    paper's five were behind by 1.4 points of Dice where nnU-Net plans six (docs/results.md)."""

    supervision: ClassVar[Supervision] = "dice_ce_all"
    """Which outputs are supervised by which term; see :class:`SideOutputLoss`. Dice and cross-entropy on
    every output, by measurement: the paper's split, Dice on the prediction and cross-entropy on the side
    outputs, was behind by 0.04 of Dice under nnU-Net's recipe (docs/concepts/decisions.md)."""

    alpha: ClassVar[float | None] = None
    """Eq. 17's weight of Dice, or None for the plain sum."""

    batches_validation: ClassVar[bool] = True
    """Whether the validation cases are predicted as ``nnUNetv2_eccam predict`` does; False is nnU-Net's own way."""

    epochs: ClassVar[int | None] = None
    """Training length in epochs, or None for nnU-Net's (1000)."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, read by name
    ) -> None:
        self._asked_to_continue = bool(plans.get("continue_training"))  # nnU-Net takes it out of the plans
        self._continues = False
        self._looked_at: int | None = None  # the last epoch in which the attention was looked at
        super().__init__(plans, configuration, fold, dataset_json, device)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if self.device.type == "cpu" and threads.isdecimal():
            # nnU-Net takes as many threads as there are cores, whatever the user has said: of several
            # trainings at once on one machine, each would wait for the others at every barrier.
            torch.set_num_threads(int(threads))
        dimension = len(self.configuration_manager.patch_size)
        if dimension not in self.system.dimensions:
            raise UserError(
                f"{type(self).__name__}: {self.system.title} is a 2D network; configuration {configuration} is "
                f"{dimension}D. Use a 2D configuration"
            )
        self.enable_deep_supervision = self.system.side_outputs and self._network_arguments().get("side_outputs", True)
        if self.epochs is not None:
            self.num_epochs = self.epochs
            # nnU-Net saves every 50 epochs; a shorter training that is stopped would have nothing to resume.
            self.save_every = min(50, max(1, self.epochs // 20))

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,  # noqa: ARG003 - nnU-Net's signature
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network, for training and, through nnU-Net's predictor, for inference.

        It knows this trainer, and its weights will. Without deep supervision, which a subclass may switch off, heads
        that nothing supervises are frozen, since several GPUs would wait for their gradients. They stay in the network,
        whose weights so fit that with side outputs.
        """
        network = build_network(
            configuration_manager.configuration["architecture"],
            configuration_manager.patch_size,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
            cls.network_switches,
            cls.system.network,
            cls.max_stages,
        )
        if network.origin is not None:
            network.origin = dataclasses.replace(
                network.origin,
                trainer=cls.__name__,
                system=cls.system.title,
                switches=plain(cls.network_switches),
            )
        decoder = getattr(network, "decoder", None)
        if not enable_deep_supervision and isinstance(decoder, Decoder):
            for head in decoder.spare_heads():
                head.requires_grad_(False)
        return network

    def initialize(self) -> None:
        """Build all, and say what padding costs where the network needs it."""
        super().initialize()
        network = unwrapped(self.network)
        architecture = self.configuration_manager.configuration["architecture"]
        if unfollowed := not_followed(architecture, self.system.network, self.max_stages):
            self.print_to_log_file(f"{self.system.title} on these plans: {unfollowed}")
        patch_size = list(self.configuration_manager.patch_size)
        if isinstance(network, PadsToMultiple):
            padded = padded_size(patch_size, network.divisors, network.smallest)
            if padded != patch_size:
                cost = math.prod(padded) / math.prod(patch_size)
                self.print_to_log_file(
                    f"{self.system.title} pads the patch of {patch_size} to {padded}: {cost:.2f} times the positions"
                )

    def on_train_start(self) -> None:
        """Prepare the training; then, below all that nnU-Net prints, say what a study must know about it."""
        super().on_train_start()
        folder = Path(self.preprocessed_dataset_folder_base)
        fingerprint = folder / "dataset_fingerprint.json"
        spacings = read_json(fingerprint).get("spacings", []) if fingerprint.is_file() else []
        self._say_aloud(
            fold_warning(self.fold, folder),
            continuation_warning(
                self._asked_to_continue, self._continues, self.output_folder, self.current_epoch, self.num_epochs
            ),
            slicing_warning(self.plans_manager.plans, self.configuration_manager.patch_size, spacings),
        )

    def validation_step(self, batch: dict[str, Any]) -> Any:
        """Validate on a batch; on an epoch's first, look at the attention where that is asked for."""
        if self._looked_at != self.current_epoch and self.local_rank == 0 and is_wanted():
            self._looked_at = self.current_epoch
            image = batch["data"].to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
                state = attention_state(unwrapped(self.network), image)
            for sentence in sentences(state):
                self.print_to_log_file(sentence)
            for logger in self.logger.loggers:
                for name, value in state.items():
                    logger.log(f"attention/{name}", value, self.current_epoch)
        return super().validation_step(batch)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load a checkpoint, to continue or to validate.

        Raises:
            UserError: it does not fit; the message says what it was trained with, what is here and what to do.
        """
        if not self.was_initialized:
            self.initialize()
        if isinstance(filename_or_checkpoint, str):
            file, checkpoint = filename_or_checkpoint, read_checkpoint(filename_or_checkpoint)
        else:
            file, checkpoint = "the checkpoint", filename_or_checkpoint
        changed = check_continues(checkpoint, file, unwrapped(self.network), self.optimizer)
        super().load_checkpoint(filename_or_checkpoint)
        # nnU-Net saves checkpoint_latest.pth before it notes that the epoch was the best so far.
        past = [float(dice) for dice in self.logger.get_value("ema_fg_dice", step=None) if not np.isnan(dice)]
        self._best_ema = max(past, default=None)
        self._continues = True
        self._say_aloud(changed)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, with several tiles and mirrored copies in one call of the network."""
        with batched_validation() if self.batches_validation else nullcontext():
            super().perform_actual_validation(save_probabilities)

    def _say_aloud(self, *warnings: str | None) -> None:
        """Set warnings apart, in the log and on the console, of one process of several."""
        if self.local_rank == 0:
            for warning in filter(None, warnings):
                self.print_to_log_file(boxed(warning), also_print_to_console=True, add_timestamp=False)

    def _network_arguments(self) -> dict[str, Any]:
        return network_arguments(
            self.configuration_manager.configuration["architecture"],
            self.configuration_manager.patch_size,
            self.network_switches,
            self.max_stages,
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """Give each output's size relative to the image, from the stages that the network has.

        nnU-Net's takes the plan's stages, of which this network may use fewer.
        """
        if not self.enable_deep_supervision:
            return None
        strides = np.vstack(self._network_arguments()["strides"])
        return [list(scale) for scale in 1 / np.cumprod(strides, axis=0)[:-1]]

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the side outputs, if there are any: nnU-Net switches them on again after validation."""
        if self.enable_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    def _build_loss(self) -> nn.Module:
        terms = DiceAndCrossEntropy(
            self.label_manager.has_regions,
            self.label_manager.ignore_label,
            self.configuration_manager.batch_dice,
            self.is_ddp,
        )
        if self._do_i_compile():
            terms.soft_dice = torch.compile(terms.soft_dice)
        spare_head_is_an_error = self.is_ddp and not self._do_i_compile()
        return SideOutputLoss(terms, self.supervision, self.alpha, 1e-6 if spare_head_is_an_error else 0.0)
