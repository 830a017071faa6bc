#!/usr/bin/env bash
# The page of the whole chain on Groceries: bash docs/results/grocery_page.sh, after grocery_pruning.sh.
# Exports the student, the pruned and the fine-tuned network in int8 with the gate, then writes docs/results/grocery.html.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery

for run in student-0 distilled4-0 finetuned50-0; do
    python -m models.export --model $RUNS/$run/last --out $RUNS/exported_$run --int8 --storage uint8 \
        --calibrate shards/grocery/train --data shards/grocery/val --gate 0.01 || echo "$run misses the gate"
done
python -m train.report $RUNS/teacher $RUNS/student-0 $RUNS/distilled4-0 $RUNS/sparse-0 $RUNS/finetuned50-0 $RUNS/scratch50-0 \
    $RUNS/exported_finetuned50-0 --no-thumbnails --out docs/results/grocery.html
