#!/usr/bin/env bash
# The same with two gloo processes on a CPU: cpu.sh SOURCE OUTPUT [more options of `revela adapt`]
set -euo pipefail
source="$1" output="$2"
shift 2
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" ACCELERATE_USE_CPU=true
exec torchrun --standalone --nproc-per-node 2 --local-ranks-filter 0 --no-python \
  revela adapt "$source" --output "$output" --lm "${LM:-bundled}" --max-steps "${STEPS:-30}" "$@"
