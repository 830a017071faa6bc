#!/usr/bin/env bash
# Distillation on Groceries: bash docs/results/grocery_distillation.sh GroceryStoreDataset/dataset
# The teacher, its cached logits of 8 views, the student from scratch and distilled with K = 4 cached views (three seeds
# each), with K = 1 and 8 and with the teacher computed in every step (one seed). Called again, it goes on.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery
LINES=docs/results/grocery.jsonl
CONFIGS=train/configs/grocery
VAL=shards/grocery/val

[ -d shards/grocery/train ] || python -m data.build --source "grocery:$1" --out shards/grocery --holdout 0.2 --resize 160
# Learning rates and the teacher's weight were tuned on seed 0 of the same hold-out; the configs have the best of each.
for seed in 0 1 2; do
    unit student-$seed --config $CONFIGS/student.yaml seed=$seed
done

# distilled NAME ARGUMENTS...: a unit that has the teacher, which is trained, and its views cached, when one needs it.
distilled() {
    recorded "$1" && return
    train teacher --config $CONFIGS/teacher.yaml
    record teacher $RUNS/teacher/best
    horovodrun -np "$RANKS" python -m train.cache_teacher --config $CONFIGS/distilled.yaml --views 8 > $RUNS/cache.log 2>&1
    unit "$1" --config $CONFIGS/distilled.yaml "${@:2}"
}
for seed in 0 1 2; do
    distilled distilled4-$seed seed=$seed teacher.views=4
done
distilled distilled1-0 seed=0 teacher.views=1
distilled distilled8-0 seed=0 teacher.views=8
distilled online-0 seed=0 teacher.cache=null

paired distilled4 student 0 1 2
paired distilled1 distilled4 0
paired distilled8 distilled4 0
paired online distilled4 0
