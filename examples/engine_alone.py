"""Train a network as a job of the service would, without the service.

    python examples/engine_alone.py [OUTPUT]

Needs ``pip install '.[data]'``: the digits come with scikit-learn.
"""

import sys
from pathlib import Path

from sklearn.datasets import load_digits

from mlhf import load_model, train


def main(output: Path) -> float:
    """Train, write the model to ``output``, and return its accuracy on the test set."""
    result = train(
        {
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "mlhf"},
            "budget": {"epochs": 5},
            "seed": 0,
        },
        run_dir=output,
    )
    accuracy = result.summary["test_accuracy"]["last"]
    print(f"{result.status}: test accuracy {accuracy:.3f}")

    # The files are enough to rebuild the network, here or elsewhere.
    network = load_model(output / "artifacts")
    images = load_digits().images[:10, None]
    print("predicted:", network.predict(images).tolist())
    return accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "engine-alone-output"))
