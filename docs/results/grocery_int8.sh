#!/usr/bin/env bash
# What 8 bits cost on Groceries: bash docs/results/grocery_int8.sh, after grocery_distillation.sh.
# The student of three seeds, and beside it one of the full width.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery

for seed in 0 1 2; do deploy student-$seed shards/grocery; done
train full_width-0 --config train/configs/grocery/student.yaml model.backbone=mobilenetv2_100
deploy full_width-0 shards/grocery
