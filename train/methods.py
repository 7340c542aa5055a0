"""What a comparison compares: each method is a name and the settings that make it.

A new method is an entry of ``METHODS``; what it does not set, the flags do.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Method(NamedTuple):
    """A way to train.

    Attributes:
        title: How reports call it.
        settings: Name of a setting -> its value.
        rival: The method that it is held against, pair by pair of seeds: the same augmentation
            with ordinary labels. None: it is held against nothing but vanilla.
    """

    title: str
    settings: dict[str, Any]
    rival: str | None = None


def _method(title: str, augmentation: str, labels: str, rival: str | None = None, **others):
    return Method(title, {"augmentation": augmentation, "labels": labels, **others}, rival)


METHODS = {
    "vanilla": _method("Vanilla", "none", "one_hot"),
    "label_smoothing": _method("Label smoothing", "none", "label_smoothing"),
    "augmix": _method("AugMix", "augmix", "one_hot"),
    "augmix_autolabel": _method("AugMix + AutoLabel", "augmix", "autolabel", "augmix"),
    "augmix_together": _method(
        "AugMix + AutoLabel, together", "augmix", "autolabel", "augmix", update="together"
    ),
    "randaugment": _method("RandAugment", "randaugment", "one_hot"),
    "randaugment_autolabel": _method(
        "RandAugment + AutoLabel", "randaugment", "autolabel", "randaugment"
    ),
    "mixup_0.2": _method("mixup, β = 0.2", "mixup", "mixup", beta=0.2),
    "mixup": _method("mixup, β = 1", "mixup", "mixup", beta=1.0),
    "mixup_autolabel": _method("mixup, β = 1 + AutoLabel", "mixup", "autolabel", "mixup", beta=1.0),
    "mixup_together": _method(
        "mixup, β = 1 + AutoLabel, together",
        "mixup",
        "autolabel",
        "mixup",
        beta=1.0,
        update="together",
    ),
    "cutmix": _method("CutMix", "cutmix", "mixup", beta=1.0),
    "cutmix_autolabel": _method("CutMix + AutoLabel", "cutmix", "autolabel", "cutmix", beta=1.0),
    "soft_augmentation": _method("Soft augmentation", "soft_crop", "power"),
    "at": _method("AT", "pgd", "one_hot"),
    "ccat": _method("CCAT", "pgd", "ccat"),
    "at_autolabel": _method("AT + AutoLabel", "pgd", "autolabel", "at"),
    "at_together": _method("AT + AutoLabel, together", "pgd", "autolabel", "at", update="together"),
}
GROUPS = {
    "quick": ("vanilla", "augmix", "augmix_autolabel", "mixup", "mixup_autolabel"),
    "augmix": ("vanilla", "label_smoothing", "augmix", "augmix_autolabel"),
    "mixup": ("vanilla", "mixup_0.2", "mixup", "mixup_autolabel"),
    "adversarial": ("vanilla", "at", "ccat", "at_autolabel", "at_together"),
    "all": tuple(METHODS),
}
# Methods whose networks are attacked as well.
ATTACKED = ("at", "ccat", "at_autolabel", "at_together")


def method_names(names: Sequence[str]) -> tuple[str, ...]:
    """Resolves groups and names of methods into names.

    Args:
        names: Groups and methods; a name of both is that of the group, which holds the method.

    Returns:
        The methods, each once, in the order of ``METHODS``.

    Raises:
        ValueError: If one is neither a group nor a method, or there is none.

    Example:
        >>> method_names(["cutmix", "augmix"])  # the group augmix
        ('vanilla', 'label_smoothing', 'augmix', 'augmix_autolabel', 'cutmix')
    """
    names = [name.strip() for name in names if name.strip()]
    unknown = [name for name in names if name not in METHODS and name not in GROUPS]
    if unknown or not names:
        raise ValueError(
            f"--methods must be groups ({', '.join(GROUPS)}) or methods ({', '.join(METHODS)}), "
            f"separated by commas. Received: {', '.join(unknown) or 'none'}"
        )
    chosen = {name for each in names for name in GROUPS.get(each, (each,))}
    return tuple(name for name in METHODS if name in chosen)
