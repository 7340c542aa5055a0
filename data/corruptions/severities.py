"""The corruptions by name: what each draws, how it is applied, its constants at 32 pixels."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from data.corruptions.blur import (
    defocus_blur,
    draw_motion,
    draw_swaps,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from data.corruptions.colour import brightness, contrast, saturate
from data.corruptions.digital import draw_elastic, elastic_transform, jpeg_compression, pixelate
from data.corruptions.noise import (
    draw_counts,
    draw_normal,
    draw_uniform,
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from data.corruptions.spatter import draw_spatter, mud, water
from data.corruptions.weather import draw_fog, draw_frost, draw_snow, fog, frost, snow

SEVERITIES = (1, 2, 3, 4, 5)


class Level(NamedTuple):
    """A corruption at one severity.

    Attributes:
        draw: `draw(generator, image, *constants)` gives a tuple, the random parameters of one
            image float32 [H, W, C]; None where nothing is random.
        apply: `apply(images, *drawn, *constants)`, deterministic: float32 [N, H, W, C] in [0, 1]
            and the drawn parameters, stacked, to float [N, H, W, C], not clipped. All are those of
            Hendrycks & Dietterich (2019), appendix B, unless their docstrings say how they differ.
        constants: what the severity stands for.
    """

    draw: Callable[..., tuple] | None
    apply: Callable
    constants: tuple[float, ...]


def _levels(
    draw: Callable[..., tuple] | None, apply: Callable, *constants: tuple[float, ...]
) -> tuple[Level, ...]:
    return tuple(Level(draw, apply, values) for values in constants)


# Hendrycks & Dietterich (2019), the constants of CIFAR-10-C, severity 1 first; the fifteen of
# ImageNet-C come first.
LEVELS: dict[str, tuple[Level, ...]] = {
    "gaussian_noise": _levels(
        draw_normal, gaussian_noise, (0.04,), (0.06,), (0.08,), (0.09,), (0.10,)
    ),
    "shot_noise": _levels(draw_counts, shot_noise, (500,), (250,), (100,), (75,), (50,)),
    "impulse_noise": _levels(
        draw_uniform, impulse_noise, (0.01,), (0.02,), (0.03,), (0.05,), (0.07,)
    ),
    "defocus_blur": _levels(
        None, defocus_blur, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)
    ),
    "glass_blur": _levels(
        draw_swaps, glass_blur, (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)
    ),
    "motion_blur": _levels(
        draw_motion, motion_blur, (6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)
    ),
    "zoom_blur": _levels(None, zoom_blur, (1.06,), (1.11,), (1.16,), (1.21,), (1.26,)),
    "snow": _levels(
        draw_snow,
        snow,
        (0.10, 0.2, 1.00, 0.60, 8, 3.0, 0.95),
        (0.10, 0.2, 1.00, 0.50, 10, 4.0, 0.90),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.90),
        (0.25, 0.3, 2.25, 0.60, 12, 6.0, 0.85),
        (0.30, 0.3, 1.25, 0.65, 14, 12.0, 0.80),
    ),
    "frost": _levels(
        draw_frost, frost, (1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)
    ),
    "fog": _levels(draw_fog, fog, (0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    "brightness": _levels(None, brightness, (0.05,), (0.10,), (0.15,), (0.20,), (0.30,)),
    "contrast": _levels(None, contrast, (0.75,), (0.50,), (0.40,), (0.30,), (0.15,)),
    "elastic_transform": _levels(
        draw_elastic,
        elastic_transform,
        (0.00, 0.00, 0.08),
        (0.05, 0.20, 0.07),
        (0.08, 0.06, 0.06),
        (0.10, 0.04, 0.05),
        (0.10, 0.03, 0.03),
    ),
    "pixelate": _levels(None, pixelate, (0.95,), (0.90,), (0.85,), (0.75,), (0.65,)),
    "jpeg_compression": _levels(None, jpeg_compression, (80,), (65,), (58,), (50,), (40,)),
    "speckle_noise": _levels(
        draw_normal, speckle_noise, (0.06,), (0.10,), (0.12,), (0.16,), (0.20,)
    ),
    "gaussian_blur": _levels(None, gaussian_blur, (0.4,), (0.6,), (0.7,), (0.8,), (1.0,)),
    "spatter": (
        Level(draw_spatter, water, (0.62, 0.1, 0.7, 0.70, 0.5)),
        Level(draw_spatter, water, (0.65, 0.1, 0.8, 0.70, 0.5)),
        Level(draw_spatter, water, (0.65, 0.3, 1.0, 0.69, 0.5)),
        Level(draw_spatter, mud, (0.65, 0.1, 0.7, 0.69, 0.6)),
        Level(draw_spatter, mud, (0.65, 0.1, 0.5, 0.68, 0.6)),
    ),
    "saturate": _levels(None, saturate, (0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
}

ALL19 = tuple(LEVELS)
HENDRYCKS15 = ALL19[:15]
OVADIA17 = tuple(name for name in ALL19 if name not in ("motion_blur", "snow"))
GROUPS = {"hendrycks15": HENDRYCKS15, "ovadia17": OVADIA17, "all19": ALL19}


def corruption_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Resolve groups and names of corruptions into names.

    Args:
        names: a group (`hendrycks15`: the ImageNet-C set of Hendrycks & Dietterich (2019);
            `ovadia17`: all but motion_blur and snow, the CIFAR set of Ovadia et al. (2019);
            `all19`), a corruption, several of either separated by commas, or an iterable of them.

    Returns:
        The names, each once, in the order given.

    Raises:
        ValueError: a name is neither a group nor a corruption, or there is none at all.

    Example:
        >>> corruption_names("fog,frost,fog")
        ('fog', 'frost')
        >>> len(corruption_names("ovadia17"))
        17
    """
    parts = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    resolved: list[str] = []
    for part in parts:
        if part not in GROUPS and part not in ALL19:
            raise ValueError(
                f"A corruption must be one of the groups {', '.join(GROUPS)} or of the names "
                f"{', '.join(ALL19)}. Received: {part!r}"
            )
        resolved.extend(GROUPS.get(part, (part,)))
    if not resolved:
        raise ValueError(f"At least one corruption or group is needed. Received: {names!r}")
    return tuple(dict.fromkeys(resolved))


def checked_severities(severities: Iterable[int]) -> tuple[int, ...]:
    """Return severities, whole numbers from 1 to 5, each at most once, in ascending order.

    Raises:
        ValueError: one is unknown or repeated, or there is none.

    Example:
        >>> checked_severities([5, 1])
        (1, 5)
    """
    severities = tuple(severities)
    known = all(
        severity in SEVERITIES and not isinstance(severity, bool) for severity in severities
    )
    if not severities or not known or len(set(severities)) < len(severities):
        raise ValueError(
            f"Severities must be different whole numbers out of "
            f"{', '.join(map(str, SEVERITIES))}. Received: {list(severities)}"
        )
    return tuple(sorted(int(severity) for severity in severities))
