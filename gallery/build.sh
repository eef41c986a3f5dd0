#!/bin/sh
# Rebuild the committed gallery of LeNet: byte-identical if nothing has changed.
set -e
cd "$(dirname "$0")"
figures=$(mktemp -d)
trap 'rm -rf "$figures"' EXIT
interpret gallery lenet digits --out lenet --no-every-image
interpret evolve lenet.study --out "$figures/evolution.png"
interpret probe lenet.study --images 20 --out "$figures/invariance.png"
interpret gallery lenet.study --out lenet --no-every-image
