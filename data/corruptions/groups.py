"""The names of the corruptions, alone and in groups."""

from collections.abc import Iterable

SEVERITIES = (1, 2, 3, 4, 5)

HENDRYCKS15 = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
ALL19 = (*HENDRYCKS15, "speckle_noise", "gaussian_blur", "spatter", "saturate")
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
    """Return the severities in ascending order.

    Args:
        severities: whole numbers from 1 to 5, each at most once.

    Returns:
        The severities, sorted.

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
