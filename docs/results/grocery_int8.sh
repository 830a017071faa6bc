#!/usr/bin/env bash
# What 8 bits cost and give on Groceries: bash docs/results/grocery_int8.sh, after grocery_pruning.sh, on an idle machine.
# The student of three seeds, one of the full width, and the three fine-tuned networks of seed 0.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery

train full_width-0 --config train/configs/grocery/student.yaml model.backbone=mobilenetv2_100
for run in student-0 student-1 student-2 full_width-0 finetuned70-0 finetuned50-0 finetuned30-0; do
    deploy $run shards/grocery
done
python docs/results/sizes.py \
    $RUNS/exported_{student-{0,1,2},full_width-0,finetuned{70,50,30}-0}/model{,.int8}.onnx
