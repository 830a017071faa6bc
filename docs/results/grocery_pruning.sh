#!/usr/bin/env bash
# Slimming on Groceries: bash docs/results/grocery_pruning.sh, after grocery_distillation.sh.
# The student trained sparse, pruned to half of the MACs, fine-tuned with the unpruned one as its teacher and without, beside
# the same shape from fresh weights: three seeds. To 30 and 70 % of the MACs, and with stronger penalties: one seed.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery
LINES=docs/results/grocery.jsonl
CONFIGS=train/configs/slimming
VAL=shards/grocery/val

# slim SPARSE SHARE NAME: the sparse run of that name, trained where it is not there, pruned to SHARE percent of the MACs.
slim() {
    train "$1" --config $CONFIGS/grocery_sparse.yaml seed="${1##*-}" "${@:4}"
    record "$1"
    [ -f "$RUNS/$3/prune.json" ] || python -m prune --model "$RUNS/$1/last" --out "$RUNS/$3" \
        --max-macs "$2%" --multiple 8 --data shards/grocery/train --recalibrate 16
    record "$3" "$RUNS/$3"
}

# arms SHARE SEED: the three ways on from the network that was pruned to SHARE percent of the MACs.
arms() {
    local share="$1" seed="$2" arm
    for arm in finetuned plain scratch; do recorded "$arm$share-$seed" || break; done
    recorded "$arm$share-$seed" && return
    local pruned="$RUNS/pruned$share-$seed"
    slim "sparse-$seed" "$share" "pruned$share-$seed"
    unit "finetuned$share-$seed" --config $CONFIGS/grocery_finetune.yaml seed="$seed" model.artifact="$pruned" \
        teacher.model="$RUNS/sparse-$seed/last"
    unit "plain$share-$seed" --config $CONFIGS/grocery_finetune_plain.yaml seed="$seed" model.artifact="$pruned"
    unit "scratch$share-$seed" --config $CONFIGS/grocery_scratch.yaml seed="$seed" model.artifact="$pruned"
}

for seed in 0 1 2; do arms 50 $seed; done
arms 30 0
arms 70 0
for strength in 3e-3 4e-3 8e-3; do
    recorded "finetuned50_$strength-0" && continue
    slim "sparse$strength-0" 50 "pruned50_$strength-0" sparsity.strength="$strength"
    unit "finetuned50_$strength-0" --config $CONFIGS/grocery_finetune.yaml seed=0 \
        model.artifact="$RUNS/pruned50_$strength-0" teacher.model="$RUNS/sparse$strength-0/last"
done

paired sparse student 0 1 2
for kind in pruned finetuned plain scratch; do paired "${kind}50" student 0 1 2; done
paired finetuned50 plain50 0 1 2
paired finetuned50 scratch50 0 1 2
for share in 30 50 70; do
    for kind in pruned finetuned plain scratch; do paired "$kind$share" student 0; done
done
for strength in 3e-3 4e-3 8e-3; do
    for kind in sparse pruned50_ finetuned50_; do paired "$kind$strength" student 0; done
done
SIZED=()
for model in $RUNS/student-0/last $RUNS/pruned{70-0,50-0,50-1,50-2,30-0,50_{3,4,8}e-3-0}; do
    [ -d "$model" ] && SIZED+=("$model")
done
python docs/results/sizes.py "${SIZED[@]}"
