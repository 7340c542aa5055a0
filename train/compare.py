"""Compares ways to train: each method with each seed, measured, in one report.

Without a flag it trains the methods of the group quick with two seeds on a small part of
Fashion-MNIST, in some five minutes on two cores; then open report.html:

    python -m train.compare

On your own images, one folder for each class:

    python -m train.compare --dataset=image_folder --data_dir=... --methods=quick --seeds=2

Methods are vanilla, label_smoothing, augmix, augmix_autolabel, augmix_together, randaugment,
randaugment_autolabel, mixup_0.2, mixup, mixup_autolabel, mixup_together, cutmix, cutmix_autolabel,
soft_augmentation, at, ccat, at_autolabel and at_together; groups of them are quick, augmix, mixup,
adversarial and all. The names augmix and mixup stand for the groups, which hold these methods and
their rivals. Each trained network is also measured with a temperature, fitted on the clean hold-out
and on the augmented one. Flags of train.fit hold for all methods; one that makes a method what it
is, such as --augmentation, is refused. Where no flag says otherwise, networks are trained to the
end with a small penalty, and so are over-confident as large ones are; docs/results.md says how that
was chosen.

Results are in --output_dir: report.html, report.md, figures/, and jobs/<method>-seed<seed>/, each
the run of one network with what it predicted. A comparison that was killed goes on when the same
command is given again, and one that is done takes more methods or seeds.
"""

import dataclasses
import os
import sys

import tensorflow as tf
from absl import app, flags

from train import builders, command_line, comparison, comparison_report
from train.comparison import Job, Plan
from train.methods import GROUPS, METHODS, method_names
from train.settings import FIELDS, is_read

command_line.define_flags(FIELDS, defaults=comparison.DEFAULTS)
flags.DEFINE_boolean("download", False, "Lets TFDS download and prepare a data set, once.")
flags.DEFINE_list(
    "methods", ["quick"], f"Groups ({', '.join(GROUPS)}) or methods, separated by commas."
)
flags.DEFINE_integer("seeds", 2, "How many seeds, from --seed on.", lower_bound=1)
flags.DEFINE_integer(
    "jobs",
    None,
    "Networks that are trained at the same time; by default as many as there are cores, each on "
    "one, or one on a GPU.",
    lower_bound=1,
)
flags.DEFINE_string("output_dir", None, "Folder of the results; runs/<data set>-compare.")
flags.DEFINE_string(
    "corruptions",
    "ovadia17",
    "Names or groups (hendrycks15, ovadia17, all19) of corruptions, separated by commas.",
)
command_line.define_severities(["1", "3", "5"], "Of the corruptions, out of 1 to 5.")
flags.DEFINE_integer(
    "corrupted_examples", None, "Test images that are corrupted; all by default.", lower_bound=1
)
command_line.define_epsilons(
    "test_attack_epsilons",
    ["0.01", "0.02", "0.03"],
    "ε of the PGD attacks on networks of the group adversarial, on the scale of [0, 1].",
)
flags.DEFINE_integer(
    "test_attack_steps", 20, "Steps of each restart, of ε/4; 50 in the paper.", lower_bound=1
)
flags.DEFINE_integer("test_attack_restarts", 1, "Random starts; 3 in the paper.", lower_bound=1)
flags.DEFINE_integer("test_attack_examples", 500, "Test images that are attacked.", lower_bound=1)

FLAGS = flags.FLAGS


def plan_from_flags(methods: tuple[str, ...]) -> Plan:
    """What the flags ask for.

    Raises:
        ValueError: If a given flag is one that a method sets, or that no method reads.
    """
    settings, given = command_line.settings_from_flags()
    of_methods = [dataclasses.replace(settings, **METHODS[name].settings) for name in methods]
    for name in given:
        setters = [method for method in methods if name in METHODS[method].settings]
        if setters:
            raise ValueError(
                f"--{name} cannot be given: the method {setters[0]} sets it; leave it out."
            )
        if name == "temperature_scaling":
            raise ValueError(f"--{name} cannot be given: every network gets one; leave it out.")
        if not any(is_read(name, of_method) for of_method in of_methods):
            raise ValueError(
                f"--{name} has no effect on any of {', '.join(methods)}; leave it out."
            )
    for of_method in of_methods:
        builders.check(of_method)
    return Plan(
        settings=settings,
        corruptions=FLAGS.corruptions,
        severities=tuple(sorted({int(text) for text in FLAGS.severities})),
        corrupted_examples=FLAGS.corrupted_examples,
        test_attack_epsilons=tuple(float(text) for text in FLAGS.test_attack_epsilons),
        test_attack_steps=FLAGS.test_attack_steps,
        test_attack_restarts=FLAGS.test_attack_restarts,
        test_attack_examples=FLAGS.test_attack_examples,
    )


def at_a_time(jobs: int) -> tuple[int, int]:
    """How many of so many jobs run at the same time, and with how many threads each."""
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    several = FLAGS.jobs or (1 if on_gpu else comparison.cores())
    # Of few jobs each still has the threads of many: with other sums in another order, a figure
    # would depend on how many methods there are.
    return min(several, jobs), max(1, comparison.cores() // several)


def compare(folder: str, methods: tuple[str, ...], plan: Plan) -> dict[Job, str]:
    """Runs a comparison and writes its report; returns which jobs failed, and why."""
    splits = builders.load_data(plan.settings, download=FLAGS.download)
    builders.check_batch(plan.settings, len(splits.train))
    comparison.claim(folder, plan)
    counts = ", ".join(f"{count:,} {part}" for part, count in splits.counts().items())
    print(f"{splits.name} ({splits.source}): {counts} images.")
    seeds = range(plan.settings.seed, plan.settings.seed + FLAGS.seeds)
    # A seed after the other, so that what is there after half of the time can be compared.
    jobs = [Job(method, seed) for seed in seeds for method in methods]
    processes, threads = at_a_time(len(jobs))
    # A process takes seconds to import what it needs: a few thousand images are sooner done here.
    workers = min(comparison.cores(), 1 + len(splits.test) // 5000)
    manifest = comparison.make_corrupted(folder, plan, splits, processes=workers)
    for name, reason in manifest["skipped"].items():
        print(f"{name} is skipped: {reason}")
    failed = comparison.run_jobs(folder, jobs, at_a_time=processes, threads=threads)
    done = [job for job in jobs if job not in failed]
    if done:
        comparison_report.write(folder, done, failed)
    return failed


def main(argv: list[str]) -> None:
    """Compares what the flags ask for."""
    with command_line.one_line_errors("train.compare", argv):
        methods = method_names(FLAGS.methods)
        plan = plan_from_flags(methods)
        folder = FLAGS.output_dir or os.path.join("runs", f"{plan.settings.dataset}-compare")
        try:
            failed = compare(folder, methods, plan)
        except KeyboardInterrupt:
            sys.exit("train.compare: interrupted; the same command goes on")
        print(f"The report is {os.path.join(folder, 'report.html')}; report.md says the same.")
    if failed:
        names = "; ".join(map(str, failed))
        sys.exit(f"train.compare: {len(failed)} jobs failed: {names}. Run it again to go on.")


if __name__ == "__main__":
    app.run(main)
