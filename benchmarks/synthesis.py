"""What the receptive field's crop gains: optimising neurons on what they see, beside optimising whole images.

    python benchmarks/synthesis.py --model squeezenet1_1 --steps 40 --units 8

Both run in turn on the same units, batches as `interpret.synthesise` chooses them, without natural images. The table is
Markdown; the time is that of the whole call.
"""

from __future__ import annotations

import argparse
import time

import interpret
from interpret.network.layers import select_layers

LAYERS = "features.0,features.3.expand3x3,features.6.expand3x3,features.9.expand3x3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--layers", default=LAYERS)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2, help="the fastest round counts")
    arguments = parser.parse_args()
    model = interpret.load(arguments.model)
    print("| layer | pixels | what it sees: s a unit and step | whole image: s a unit and step | gain |")
    print("|---|---|---|---|---|")
    for layer in select_layers(model.module, arguments.layers):
        sizes: list[tuple[int, int] | None] = [None, model.input_shape[1:]]
        best = [float("inf")] * 2
        side = 0
        for _ in range(arguments.rounds):
            for place, size in enumerate(sizes):
                began = time.perf_counter()
                made = interpret.synthesise(model, layer, range(arguments.units), size=size, steps=arguments.steps)
                best[place] = min(best[place], time.perf_counter() - began)
                side = side if place else made.pictures.shape[1]
        each = [seconds / arguments.units / arguments.steps for seconds in best]
        print(f"| `{layer}` | {side} | {each[0]:.4f} | {each[1]:.4f} | {each[1] / each[0]:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
