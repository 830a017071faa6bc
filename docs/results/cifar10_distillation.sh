#!/usr/bin/env bash
# Three losses of distillation on CIFAR-10: bash docs/results/cifar10_distillation.sh FOLDER
# FOLDER holds train/<class>/*.jpg; a fifth is held out. One teacher; cross-entropy alone, soft targets, cosine of features
# and a feature regressor with three seeds each. In bf16, and soft targets from the cache: without augmentation a photo has
# one view.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/cifar10
LINES=docs/results/cifar10.jsonl
CONFIGS=train/configs/cifar10
VAL=shards/cifar10/val
SETTINGS=(data.val=$VAL precision=bf16)

[ -d shards/cifar10/train ] || python -m data.build --source "cifar10:$1" --out shards/cifar10 --holdout 0.2
CACHE=teacher.cache=shards/cifar10/teacher

# taught KIND SEED ARGUMENTS...: a unit that has the teacher, which is trained, and cached, when one needs it.
taught() {
    recorded "$1-$2" && return
    train teacher --config $CONFIGS/teacher.yaml "${SETTINGS[@]}"
    record teacher $RUNS/teacher/best
    horovodrun -np "$RANKS" python -m train.cache_teacher --config $CONFIGS/soft_targets.yaml --views 1 $CACHE \
        "${SETTINGS[@]}" > $RUNS/cache.log 2>&1
    unit "$1-$2" --config "$CONFIGS/$1.yaml" seed="$2" "${SETTINGS[@]}" "${@:3}"
}

for seed in 0 1 2; do
    unit student-$seed --config $CONFIGS/student.yaml seed=$seed "${SETTINGS[@]}"
    taught soft_targets $seed $CACHE
    taught cosine $seed
    taught regressor $seed
done
for kind in soft_targets cosine regressor; do paired $kind student 0 1 2; done
