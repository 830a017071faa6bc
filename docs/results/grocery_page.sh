#!/usr/bin/env bash
# The page of the whole chain on Groceries: bash docs/results/grocery_page.sh, after grocery_pruning.sh.
# Exports the student, the distilled and the fine-tuned network, then writes docs/results/grocery.html and, by chromium, its picture.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery

for run in student-0 distilled4-0 finetuned50-0; do deploy $run shards/grocery; done
python -m train.report $RUNS/teacher $RUNS/student-0 $RUNS/distilled4-0 $RUNS/sparse-0 $RUNS/finetuned50-0 $RUNS/scratch50-0 \
    $RUNS/exported_finetuned50-0 --no-thumbnails --out docs/results/grocery.html
chromium --headless --no-sandbox --hide-scrollbars --window-size=1150,1540 \
    --screenshot=docs/results/grocery.png "file://$PWD/docs/results/grocery.html" 2> /dev/null
