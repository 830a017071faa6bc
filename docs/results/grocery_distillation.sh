#!/usr/bin/env bash
# Distillation on Groceries: bash docs/results/grocery_distillation.sh GroceryStoreDataset/dataset
# The teacher, its cached logits of 8 views, the student from scratch and distilled with K = 4 cached views (three seeds
# each), with K = 1 and 8 and with the teacher computed in every step (one seed). Called again, it goes on.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/grocery
CONFIGS=train/configs/grocery
VAL=shards/grocery/val

[ -d shards/grocery/train ] || python -m data.build --source "grocery:$1" --out shards/grocery --holdout 0.2 --resize 160
train teacher --config $CONFIGS/teacher.yaml
horovodrun -np "$RANKS" python -m train.cache_teacher --config $CONFIGS/distilled.yaml --views 8 > $RUNS/cache.log 2>&1

# Learning rates and the teacher's weight were tuned on seed 0 of the same hold-out; the configs have the best of each.
for seed in 0 1 2; do
    train student-$seed --config $CONFIGS/student.yaml seed=$seed
    train distilled4-$seed --config $CONFIGS/distilled.yaml seed=$seed teacher.views=4
done
train distilled1-0 --config $CONFIGS/distilled.yaml seed=0 teacher.views=1
train distilled8-0 --config $CONFIGS/distilled.yaml seed=0 teacher.views=8
train online-0 --config $CONFIGS/distilled.yaml seed=0 teacher.cache=null

compare distilled_vs_student distilled4 student $VAL 0 1 2
compare views1_vs_4 distilled1 distilled4 $VAL 0
compare views8_vs_4 distilled8 distilled4 $VAL 0
compare online_vs_4 online distilled4 $VAL 0
