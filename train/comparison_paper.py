"""The tables of a comparison in the shape of the paper's, with its own figures beside ours."""

from train.comparison_tables import (
    Cell,
    Measured,
    Table,
    all_methods,
    attacks,
    costs,
    differences,
    figures_table,
    temperatures,
)

# The paper's own figures, in percent.
PUBLISHED_2 = {
    "augmix": ["96.9/87.7", "80.6/63.9", "76.3/47.0", "1.0/4.1", "5.1/11.8", "1.9/5.5"],
    "augmix_autolabel": ["96.9/88.2", "81.6/65.0", "76.7/47.6", "0.9/2.7", "1.8/4.3", "1.4/4.3"],
}
PUBLISHED_3 = {
    "vanilla": ["95.6", "2.6", "79.5", "6.1"],
    "mixup_0.2": ["96.2", "0.8", "80.8", "1.8"],
    "mixup": ["96.5", "5.3", "80.9", "5.5"],
    "mixup_autolabel": ["96.7", "0.6", "81.1", "1.2"],
}
PUBLISHED_4 = {
    "vanilla": ["95.6/76.0", "79.5/52.0", "2.6/15.8", "6.1/17.6"],
    "at": ["93.6/83.9", "71.5/58.1", "3.7/10.5", "8.0/13.5"],
    "ccat": ["93.2/68.9", "74.8/49.8", "2.4/9.9", "7.9/16.1"],
    "at_autolabel": ["94.6/83.6", "75.3/60.2", "2.0/6.5", "4.2/6.9"],
}
_SETS = ("CIFAR-10", "CIFAR-100", "ImageNet")
_OURS = ("accuracy", "cacc", "ece", "cece", "cece_debiased")
PAPER = (
    # Number, what it is about, the figures beside ours, heads and rows of the published ones.
    (2, "AugMix", _OURS, [*(f"{s} Acc/cAcc" for s in _SETS), *(f"{s} ECE/cECE" for s in _SETS)],
     PUBLISHED_2),
    (3, "mixup", ("accuracy", "ece", "ece_debiased", "cacc", "cece_debiased"),
     [f"{s} {f}" for s in _SETS[:2] for f in ("Acc", "ECE")], PUBLISHED_3),
    (4, "adversarial training", _OURS,
     [f"{s} {f}" for f in ("Acc/cAcc", "ECE/cECE") for s in _SETS[:2]], PUBLISHED_4),
)  # fmt: skip


def papers(measured: Measured) -> list[Table]:
    """The paper's Tables 2, 3 and 4 with our figures, and the published ones beside them."""
    tables = []
    for number, about, figures, heads, published in PAPER:
        shown = [method for method in published if method in measured.methods]
        # Vanilla alone, or one label kind alone, is no such table.
        if len([method for method in shown if method != "vanilla"]) < 2:
            continue
        ours = figures_table(
            measured,
            [(method, "none") for method in shown],
            figures,
            name=f"table{number}",
            title=f"As Table {number} of the paper: {about}",
            note="The columns on the right are the paper's own figures, published on other data "
            "and with larger networks (CIFAR: WRN-28-10, ImageNet: ResNet-50): they say which "
            "way it went there, not what is to be reached here.",
        )
        ours.heads.extend(f"published, {head}" for head in heads)
        for row, method in zip(ours.rows, shown, strict=True):
            row.extend(Cell(text, float(text.split("/")[0])) for text in published[method])
        tables.append(ours)
    return tables


def tables_of(measured: Measured) -> list[Table]:
    """All tables of a report, in their order."""
    ours = [all_methods(measured), differences(measured), temperatures(measured)]
    tables = [*ours, *papers(measured), attacks(measured), costs(measured)]
    return [table for table in tables if table is not None]
