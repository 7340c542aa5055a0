"""What a smaller sample of the hold-out, or an ECE without its noise floor, does to learned labels.

    python -m benchmarks.label_update --dataset=digits --augmentation=mixup \
        --holdout_examples=417 --judge_examples=297 --epochs=12 --l2=1e-4

For each seed a network is trained from the same weights, on the same batches, once with each of
--updates: so many hold-out images in each bucket, or all, or auto, the default; with -debias, the
ECE of Eq. (1) is the debiased one. A seed changes weights, order and what is drawn, not the split.
--judge_examples are left out of the hold-out, guide no labels, and are what is measured after
training. No test image is read. Means over seeds, with standard errors:

- difference: |label − that of the first update|, mean over buckets; in the title, the same between
  the seeds of the first update.
- moves: |change of a label from one epoch to the next|, mean over buckets and the last five.
- error: debiased ECE of the augmented images, mean over buckets; gap: |Conf − Acc|, likewise.
- clean ECE, accuracy: of the images as they are.
"""

import dataclasses
import sys

from absl import app, flags

import data
from benchmarks.updates import callback_of, shown, table_of, train
from data.splits import split_off
from train import builders, command_line
from train.settings import FIELDS

command_line.define_flags(FIELDS)
flags.DEFINE_list("updates", ["all", "auto", "all-debias"], "Updates to compare, see above.")
flags.DEFINE_integer("seeds", 3, "How many seeds, from --seed on.", lower_bound=1)
flags.DEFINE_integer("judge_examples", 1000, "Hold-out images that are left out.", lower_bound=2)

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Trains, and prints the table."""
    with command_line.one_line_errors("benchmarks.label_update", argv):
        settings, _ = command_line.settings_from_flags()
        builders.check(dataclasses.replace(settings, labels="autolabel"))
        splits = builders.load_data(settings)
        parts = split_off(splits.holdout, FLAGS.judge_examples, seed=0, what="judge")
        guide, judge = (data.in_memory(part) for part in parts)
        splits = dataclasses.replace(splits, holdout=guide)
        for update in FLAGS.updates:
            callback_of(update, judge)
        model = builders.build_model(settings, splits)
        model.optimizer.build(model.trainable_variables)
        seeds = []
        for seed in range(settings.seed, settings.seed + FLAGS.seeds):
            of_seed = dataclasses.replace(settings, seed=seed)
            seeds.append(train(model, of_seed, splits, judge, FLAGS.updates))
            print(f"seed {seed} is done", file=sys.stderr)
    between, rows = table_of(seeds)
    print(
        f"{settings.dataset}, {settings.augmentation}: {len(splits.train):,} training, "
        f"{len(guide):,} hold-out, {len(judge):,} judging images; {settings.epochs} epochs, "
        f"{FLAGS.seeds} seeds. Labels differ by {between:.4f} between seeds."
    )
    print("| update | difference | moves | error | gap | clean ECE | accuracy |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for update, columns in rows.items():
        cells = [shown(values, 1.0, 4) for values in columns[:2]]
        cells += [shown(values, 100.0, 2) for values in columns[2:]]
        print(f"| {update} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
