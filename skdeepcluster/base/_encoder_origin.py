"""Where the encoder of a clusterer comes from: pretrained in the fit, or arriving trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skdeepcluster._warnings import warn
from skdeepcluster.base._building import MakeProjector, Views, frozen_backbone
from skdeepcluster.base._inference import embed_once
from skdeepcluster.base._pretrainer import Pretrainer
from skdeepcluster.base._protection import ProtectedEstimator
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._tuning import Round, second_round
from skdeepcluster.base._validation import validate_parameters
from skdeepcluster.data import Source, open_array
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import FrozenBackbone, is_pretrained, same_backbone
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training import Countdown, Trainer, choose_device, intra_op_threads


class EncodingEstimator(ProtectedEstimator):
    """A clusterer whose encoder is pretrained in the fit, or arrives trained.

    What arrives trained embeds each sample once, and may be fine-tuned for a second round.
    """

    # Whether the encoder may stop learning once it was pretrained.
    _stops_learning: ClassVar[bool] = False
    # What pretraining="auto" stands for.
    _default_pretraining: ClassVar[type[Pretrainer]]

    pretraining: str | Pretrainer | None
    views: Views
    fine_tune: bool | str

    @abstractmethod
    def _cluster(
        self, source: Source, trainer: Trainer, report: CallbackReport, n_threads: int
    ) -> Any:
        """Learn clusters of samples."""

    @abstractmethod
    def _round(self) -> list[str]:
        """Return the names of the phases in which clusters are learned."""

    def _pretrainer(self) -> Pretrainer | None:
        """Return what pretrains the encoder, if anything does."""
        if self.pretraining is None or isinstance(self.pretraining, Pretrainer):
            return self.pretraining
        # A backbone that arrives trained is the result of a longer pretraining than ours.
        if self._sees_images() and is_pretrained(self.backbone, self.pretrained):
            return None
        return self._default_pretraining()

    def _check_pretrainer(self, pretrainer: Pretrainer) -> None:
        """Refuse what would be ignored: the network is the clusterer's, the method the other's."""
        validate_parameters(pretrainer)
        if pretrainer.backbone != "auto" and not same_backbone(pretrainer.backbone, self.backbone):
            raise ValueError(
                f"pretraining has backbone={pretrainer.backbone!r}, but pretrains this "
                f"{type(self).__name__}'s, backbone={self.backbone!r}. Set it there."
            )
        if pretrainer.pretrained and pretrainer.pretrained != self.pretrained:
            raise ValueError(
                f"pretraining has pretrained={pretrainer.pretrained!r}, but pretrains this "
                f"{type(self).__name__}'s backbone, pretrained={self.pretrained!r}. Set it there."
            )
        if pretrainer.views not in ("auto", self.views):
            raise ValueError(
                f"pretraining has views={pretrainer.views!r}, but sees this "
                f"{type(self).__name__}'s, views={self.views!r}. Set them there."
            )

    def _projector(self) -> MakeProjector | None:
        """Return what makes a projector, if anything teaches it before clusters depend on it."""
        pretrainer = self._pretrainer()
        if pretrainer is None:
            return None
        # Nothing teaches a layer on a backbone that arrives trained and goes straight to the heads.
        untaught = pretrainer.max_epochs == 0 and self._sees_images() and self._arrives_trained()
        return None if untaught else pretrainer._make_projector

    def _frozen_backbone(self, source: Source) -> FrozenBackbone | None:
        """Return the backbone, if it arrives trained and is not to learn any more."""
        if self._goes_on():
            self._check_same_backbone(source)
            return self._frozen
        if not self._takes_images():
            return None
        learns = isinstance(self.pretraining, Pretrainer) or not self._arrives_trained()
        if learns and not self.fine_tune and not self._stops_learning:
            raise ValueError(
                f"fine_tune=False asks for a backbone that is used as it came, but backbone="
                f"{self.backbone!r} with pretrained={self.pretrained!r} and pretraining="
                f"{self.pretraining!r} has to learn. Give it trained weights and no pretraining, "
                "or leave fine_tune='auto'."
            )
        if learns:
            return None
        with OwnDraws(0):  # of weights that those that were learned replace
            backbone = self._backbone_in_use(source.device)
            frozen = frozen_backbone(source, backbone, self.pretrained)
        may_learn = bool(frozen.teachable) and self._may_fine_tune()
        if self.fine_tune and self.fine_tune != "auto" and not may_learn:
            raise ValueError(
                "fine_tune=True asks for a backbone that learns, but no parameter of this one has "
                "requires_grad. Give it one that has, or leave fine_tune='auto'."
            )
        if self.views not in ("auto", ["neighbor"]) and not may_learn:
            raise ValueError(
                f"views={self.views!r} are made while a backbone learns, but this one arrives "
                "trained and is used as it came. Set fine_tune=True, or leave views='auto'."
            )
        return frozen

    def _may_fine_tune(self) -> bool:
        """Whether a backbone that arrives trained may learn: of "auto", where it costs little."""
        if self.fine_tune == "auto":
            return choose_device(self.device).type != "cpu"
        return bool(self.fine_tune)

    def _check_same_backbone(self, source: Source) -> None:
        """Refuse to go on, with features that an earlier fit has learned, from others."""
        if self._frozen is None:
            return
        n_channels = self._frozen.n_channels
        suits = self._takes_images() and source.sample_shape[0] == n_channels
        same = self._backbone_name(source.device) == self.backbone_name_
        if not (suits and same):
            raise ValueError(
                "warm_start=True goes on from the networks of the last fit, which learned the "
                f"features of {self.backbone_name_} for images of {n_channels} channels. They do "
                "not suit this X or these parameters. Set warm_start=False."
            )

    def _arrives_trained(self) -> bool:
        """Whether the backbone was trained before the fit."""
        return is_pretrained(self.backbone, self.pretrained)

    def _is_said_to_arrive_trained(self) -> bool:
        """Whether it was, where a module may be one to train: the user can say that it is none."""
        said = bool(self.pretrained) or self.fine_tune != "auto"
        is_module = isinstance(self.backbone, nn.Module)
        return is_pretrained(self.backbone, self.pretrained) and (said or not is_module)

    def _embedded_once(
        self, frozen: FrozenBackbone, source: Source, trainer: Trainer, n_threads: int
    ) -> Source:
        """Return what the frozen backbone makes of the samples, as a source of its own."""
        countdown = Countdown("embedding", len(source), trainer.say)
        with intra_op_threads(n_threads):
            embedded = embed_once(source, frozen, countdown)
        features = trainer.agreed(torch.from_numpy(embedded))
        return open_array(features.cpu().numpy(), source.device)

    def _tunes(self) -> bool:
        """Whether a backbone that arrived trained is to be fine-tuned in this fit."""
        if self._frozen is None or self._goes_on():
            return False
        return bool(self._frozen.teachable) and self._may_fine_tune()

    def _fine_tuned(
        self,
        first: Round,
        images: Source,
        before: dict[str, Any],
        trainer: Trainer,
        report: CallbackReport,
        n_threads: int,
    ) -> Any:
        """Fine-tune the backbone, cluster anew, and return what is better separated.

        ``before`` is all that this estimator was before it learned clusters: from there it sets out
        once more, and what the first round has made of it is put back where that was no worse.
        """
        better = None
        try:
            if not trainer.interrupted:
                self._become(before)
                better = second_round(self, first, images, trainer, report, n_threads)
        except (DivergenceError, MemoryError) as error:
            warn(
                f"The backbone is used as it came, for fine-tuning it has failed: {error}",
                ConvergenceWarning,
            )
        finally:
            if better is None:
                self._become({"selected_stage_": "clustering", **first.attributes})
        return first.objective if better is None else better

    def _become(self, state: dict[str, Any]) -> None:
        """Set all attributes, and no others."""
        self.__dict__.clear()
        self.__dict__.update(state)

    def _labels_to_judge(
        self, state: Mapping[str, Any], first: Mapping[str, Any]
    ) -> NDArray[np.int64]:
        """Return the labels of a state that are to be compared with those of the first."""
        labels: NDArray[np.int64] = state["labels_"]
        return labels
