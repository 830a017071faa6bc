#!/usr/bin/env bash
# Three losses of distillation on CIFAR-10: bash docs/results/cifar10_distillation.sh FOLDER
# FOLDER holds train/<class>/*.jpg; a fifth is held out. One teacher; cross-entropy alone, soft targets, cosine of features
# and a feature regressor with three seeds each. In bf16, and soft targets from the cache: without augmentation a photo has
# one view.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/cifar10
CONFIGS=train/configs/cifar10
VAL=shards/cifar10/val
SETTINGS=(data.val=$VAL precision=bf16)

[ -d shards/cifar10/train ] || python -m data.build --source "cifar10:$1" --out shards/cifar10 --holdout 0.2
train teacher --config $CONFIGS/teacher.yaml "${SETTINGS[@]}"
CACHE=teacher.cache=shards/cifar10/teacher
horovodrun -np "$RANKS" python -m train.cache_teacher --config $CONFIGS/soft_targets.yaml --views 1 $CACHE "${SETTINGS[@]}" \
    > $RUNS/cache.log 2>&1
for seed in 0 1 2; do
    train student-$seed --config $CONFIGS/student.yaml seed=$seed "${SETTINGS[@]}"
    train soft_targets-$seed --config $CONFIGS/soft_targets.yaml seed=$seed $CACHE "${SETTINGS[@]}"
    train cosine-$seed --config $CONFIGS/cosine.yaml seed=$seed "${SETTINGS[@]}"
    train regressor-$seed --config $CONFIGS/regressor.yaml seed=$seed "${SETTINGS[@]}"
done
for kind in soft_targets cosine regressor; do
    compare ${kind}_vs_student $kind student $VAL 0 1 2
done
