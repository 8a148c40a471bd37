#!/usr/bin/env bash
# Adapt on the GPUs of one machine: node.sh SOURCE OUTPUT [more options of `revela adapt`]
# GPUS=4 node.sh ... uses fewer than all.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
source="$1" output="$2"
shift 2
exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --local-ranks-filter 0 --no-python \
  revela adapt "$source" --output "$output" --config "${SETTINGS:-$here/settings.toml}" "$@"
