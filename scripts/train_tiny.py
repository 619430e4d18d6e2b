"""Train wan-tiny: `python scripts/train_tiny.py --config configs/train/tiny_cpu.yaml --footage '[clip.mp4]'`.

A run that was stopped goes on from its last checkpoint when it is started again with the same `out`.
"""

from jsonargparse import ArgumentParser

from wanedit.lit.training.pipeline import TrainTiny, train_tiny


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_class_arguments(TrainTiny)
    parser.add_argument("--config", action="config")
    settings = parser.instantiate(parser.parse_args())
    train_tiny(TrainTiny(**{name: value for name, value in vars(settings).items() if name != "config"}))


if __name__ == "__main__":
    main()
