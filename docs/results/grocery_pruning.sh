#!/usr/bin/env bash
# Slimming on Groceries: bash docs/results/grocery_pruning.sh, after grocery_distillation.sh.
# The student trained sparse, pruned to half of the MACs, fine-tuned with the unpruned one as its teacher and without, beside
# the same shape from fresh weights: three seeds. To 30 and 70 % of the MACs, and with stronger penalties: one seed.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery
CONFIGS=train/configs/slimming
VAL=shards/grocery/val

# arms SHARE SEED: prune to SHARE percent of the MACs and train the three arms.
arms() {
    local share="$1" seed="$2"
    local pruned="$RUNS/pruned$share-$seed"
    [ -f "$pruned/prune.json" ] || python -m prune --model "$RUNS/sparse-$seed/last" --out "$pruned" \
        --max-macs "$share%" --multiple 8 --data shards/grocery/train --recalibrate 16
    train "finetuned$share-$seed" --config $CONFIGS/grocery_finetune.yaml seed="$seed" model.artifact="$pruned" \
        teacher.model="$RUNS/sparse-$seed/last"
    train "plain$share-$seed" --config $CONFIGS/grocery_finetune_plain.yaml seed="$seed" model.artifact="$pruned"
    train "scratch$share-$seed" --config $CONFIGS/grocery_scratch.yaml seed="$seed" model.artifact="$pruned"
}

for seed in 0 1 2; do
    train "sparse-$seed" --config $CONFIGS/grocery_sparse.yaml seed=$seed
    arms 50 $seed
done
arms 30 0
arms 70 0
for strength in 3e-3 4e-3 8e-3; do
    train "sparse$strength-0" --config $CONFIGS/grocery_sparse.yaml seed=0 sparsity.strength="$strength"
    [ -f "$RUNS/pruned50_$strength-0/prune.json" ] || python -m prune --model "$RUNS/sparse$strength-0/last" \
        --out "$RUNS/pruned50_$strength-0" --max-macs 50% --multiple 8 --data shards/grocery/train --recalibrate 16
    train "finetuned50_$strength-0" --config $CONFIGS/grocery_finetune.yaml seed=0 \
        model.artifact="$RUNS/pruned50_$strength-0" teacher.model="$RUNS/sparse$strength-0/last"
done

compare sparse_vs_student sparse student $VAL 0 1 2
for kind in pruned finetuned plain scratch; do
    compare "${kind}50_vs_student" "${kind}50" student $VAL 0 1 2
done
compare finetuned50_vs_plain50 finetuned50 plain50 $VAL 0 1 2
compare finetuned50_vs_scratch50 finetuned50 scratch50 $VAL 0 1 2
for share in 30 50 70; do
    for kind in pruned finetuned plain scratch; do
        compare "$kind${share}_vs_student_seed0" "$kind$share" student $VAL 0
    done
done
for strength in 3e-3 4e-3 8e-3; do
    for kind in sparse pruned50_ finetuned50_; do
        compare "$kind${strength}_vs_student_seed0" "$kind$strength" student $VAL 0
    done
done
PYTHONPATH="$PWD:${PYTHONPATH:-}" python docs/results/sizes.py $RUNS/student-0/last \
    $RUNS/pruned{70-0,50-0,50-1,50-2,30-0,50_{3,4,8}e-3-0}
