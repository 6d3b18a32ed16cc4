"""Groups of training options; base.yaml gives the paper's values and their sources."""

from dataclasses import dataclass
from typing import Any, Literal

from musicinfuser.errors import UserError
from musicinfuser.number_names import decimal_names
from musicinfuser.setting_checks import check_choice, check_number

PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed", "bf16", "16")
"""Of a run; the older names mean the mixed ones."""


@dataclass(frozen=True)
class CounterfactualSpec:
    """A term that asks a clip with changed music to be predicted worse than with its own.

    Off by default. It costs one more forward and backward pass of each batch.
    """

    weight: float = 0.0
    """Times the term in the loss; 0 is none, and costs nothing."""
    kind: Literal["shifted", "silent", "other"] = "shifted"
    """The changed music: the clip's own moved by 0.2 to 0.5 s, none, or the batch's next clip's."""
    margin: float = 0.05
    """By what share of the loss with the own music the other should be worse; more is not asked.
    Ours: about a quarter of the small world's gap over all noise levels (19 %)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("objective.counterfactual.weight", self.weight, at_least=0)
        check_number("objective.counterfactual.margin", self.margin, above=0)
        kinds = ("shifted", "silent", "other")
        check_choice("objective.counterfactual.kind", self.kind, kinds)


@dataclass(frozen=True)
class MaskSpec:
    """Errors within a clip's mask, as around its dancers, count more than those outside, or less.

    The mean is over the weights, so a clip counts as much as any other. Off by default; validation
    counts all pixels the same, so that its losses can be compared between runs.
    """

    weight: float = 1.0
    """Of a latent pixel inside, where one outside has 1; 1 is none, and costs nothing."""
    unmasked: Literal["refuse", "plain"] = "refuse"
    """What becomes of clips without a mask: ``refuse`` names them before the run starts, ``plain``
    trains on them with the weight 1 everywhere."""

    def __post_init__(self) -> None:
        """Check range and choice."""
        check_number("objective.mask.weight", self.weight, above=0)
        check_choice("objective.mask.unmasked", self.unmasked, ("refuse", "plain"))

    @property
    def is_on(self) -> bool:
        """Whether masks are looked at."""
        return self.weight != 1


@dataclass(frozen=True)
class ObjectiveSpec:
    """What the loss compares (section 3, eq. 1)."""

    latent_space: Literal["normalised", "authors"] = "normalised"
    """``normalised``: input and target in the space Mochi was trained in. ``authors``: the input in
    VAE units and only the target normalised, as the authors' code does."""
    counterfactual: CounterfactualSpec = CounterfactualSpec()
    """The same clips with changed music; the validation looks at other music anyway."""
    mask: MaskSpec = MaskSpec()
    """What errors count where the dancers are; for caches with masks (``data.masks`` of encoding).
    """
    noise_levels: Literal["family", "plain"] = "family"
    """``family``: what is drawn from Beta(1, beta) is moved towards noise as far as the backbone's
    own levels are (Mochi: not; Wan: ``sampling.shift``). ``plain``: it is not moved."""
    first_frame_probability: float = 0.0
    """Share of samples whose first latent frame is given: it has no noise and does not count in the
    loss, as in generation from a picture. For backbones that can begin with one (``wan_5b``)."""

    def __post_init__(self) -> None:
        """Check the choice."""
        check_choice("objective.noise_levels", self.noise_levels, ("family", "plain"))
        share = self.first_frame_probability
        check_number("objective.first_frame_probability", share, at_least=0, at_most=1)


@dataclass(frozen=True)
class ValidationSpec:
    """Which noise levels validation looks at, and when it speaks up."""

    sigmas: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 0.95)
    """Fixed levels, our choice; music matters most where little of the motion is left to see."""

    warn_ignored_audio_after: int | None = 1000
    """From so many optimizer steps on, warn once if the interval of the gap between other music and
    own holds 0, or less than 0.1 % of the loss; null never. A quarter of the recipe's 4,000; on the
    small world it shows by step 300 (small_world/experiments/results/zica_time.md)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        hint = ", or null for no warning"
        check_number(
            "validation.warn_ignored_audio_after",
            self.warn_ignored_audio_after,
            at_least=1,
            hint=hint,
        )
        if not self.sigmas or not all(0 < sigma <= 1 for sigma in self.sigmas):
            raise UserError(f"validation.sigmas is {self.sigmas}; give levels above 0, up to 1.")
        if len(set(self.sigmas)) < len(self.sigmas):
            raise UserError(f"validation.sigmas is {self.sigmas}; name each level once.")

    @property
    def names(self) -> list[str]:
        """The levels as parts of names of curves, in their order, no two alike."""
        return decimal_names(self.sigmas)


def check_same_family(backbone: Any, **parts: Any) -> None:
    """Refuse parts of a model that are of another family than its backbone.

    Raises:
        UserError: Names the part and both families.
    """
    for name, part in parts.items():
        if part.family != backbone.family:
            raise UserError(
                f"model.backbone.family is {backbone.family}, but model.{name}.family is "
                f"{part.family}; give both the same."
            )
