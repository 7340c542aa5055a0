"""Generate a corrupted test set.

    python -m data.corrupt --dataset=fashion_mnist --output_dir=runs/fmnist-c

All test images by default: the fewer, the higher is the calibration error that noise alone gives.
About 40 s of CPU time and 600 MB for 15 corruptions of 10,000 images of 28x28 pixels at 5
severities. Running the same command again finishes an interrupted set and keeps what is complete.
The test images are those of a run of train.fit that had the same --image_size, --crop_and_flip and
--skip_unreadable.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from data.corruptions import GROUPS, corrupt
from data.corruptions.generation import choose_examples, generate_corrupted
from data.loaders import RESIZED, load
from data.splits import in_memory


# Each worker process imports this module again: nothing here imports TensorFlow at once.
class _OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m data.corrupt",
        description="Write a corrupted test set in the layout of CIFAR-10-C, with a manifest.",
    )
    parser.add_argument("--dataset", required=True, help="such as fashion_mnist or cifar10")
    parser.add_argument("--output_dir", required=True, help="folder to write or to finish")
    parser.add_argument(
        "--corruptions",
        default="ovadia17",
        help=f"a group ({', '.join(GROUPS)}), or names separated by commas; default: %(default)s",
    )
    parser.add_argument(
        "--severities", type=_whole_numbers, default="1,2,3,4,5", help="default: %(default)s"
    )
    parser.add_argument(
        "--examples", type=int, help="how many, the first of each class; default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default: %(default)s")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="default: %(default)s"
    )
    parser.add_argument("--data_dir", help="folder that holds the clean data")
    parser.add_argument(
        "--image_size",
        type=int,
        help="side of the images of imagenet2012 and image_folder; must be given for these",
    )
    parser.add_argument(
        "--crop_and_flip",
        action="store_true",
        default=None,
        help="as in the run; test images of image_folder then are the inner 87.5%% of the square",
    )
    parser.add_argument(
        "--nocrop_and_flip", dest="crop_and_flip", action="store_false", help="as in the run"
    )
    parser.add_argument(
        "--skip_unreadable", action="store_true", help="leave out files that are no image"
    )
    parser.add_argument("--download", action="store_true", help="fetch the data, once")
    return parser


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers separated by commas. Received: {text!r}"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate a set as the command line says, or end with one line that says why not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dataset in RESIZED and options.image_size is None:
        parser.error(f"--image_size is missing: {options.dataset} has images of any size")
    try:
        test = load(
            options.dataset,
            data_dir=options.data_dir,
            crop_and_flip=options.crop_and_flip,
            image_size=options.image_size,
            download=options.download,
            skip_unreadable=options.skip_unreadable,
        ).test
        # What cannot be corrupted is refused before all of it is read.
        corrupt(in_memory(test.select([0])).images, "contrast", severity=1, seed=0)
        chosen = in_memory(test.select(choose_examples(test.labels, options.examples)))
        manifest = generate_corrupted(
            chosen.images,
            chosen.labels,
            options.output_dir,
            dataset=options.dataset,
            corruptions=options.corruptions,
            severities=options.severities,
            seed=options.seed,
            processes=options.processes,
            progress=True,
        )
    except (ValueError, OSError, ImportError) as error:
        parser.error(" ".join(str(error).split()))
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: interrupted; the same command finishes the set\n")
    for name, reason in manifest["skipped"].items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(
        f"{manifest['name']}: {len(manifest['corruptions'])} corruptions of "
        f"{manifest['examples']} images in {options.output_dir}"
    )


if __name__ == "__main__":
    main()
