#!/usr/bin/env bash
# Slimming of ResNet-20 on CIFAR-10 to half of the MACs, ours beside Torch-Pruning's on the same trained network:
# pip install torch-pruning==1.6.1; bash docs/results/cifar10_pruning.sh, after cifar10_distillation.sh made the shards.
# Both prune the inner channels of the blocks, to multiples of 4: theirs ranked by batch-norm weights, to at
# most half of the MACs; ours ranked in three ways, to at most theirs. All are fine-tuned alike.
cd "$(dirname "$0")/../.."
source docs/results/common.sh
RUNS=runs/cifar10
LINES=docs/results/cifar10.jsonl
CONFIGS=train/configs/slimming
VAL=shards/cifar10/val

train resnet20_sparse --config $CONFIGS/cifar10_resnet20_sparse.yaml data.val=$VAL
THEIRS=$RUNS/resnet20_torch_pruning
[ -f $THEIRS/model.json ] || python docs/results/torch_pruning_slimming.py \
    --model $RUNS/resnet20_sparse/last --out $THEIRS --max-macs 50% --multiple 4
MACS=$(python -c "import json; print(json.load(open('$THEIRS/model.json'))['provenance']['torch_pruning']['macs'])")
for score in gamma relative-gamma taylor; do
    [ -f $RUNS/resnet20_$score/prune.json ] || python -m prune --model $RUNS/resnet20_sparse/last --out $RUNS/resnet20_$score \
        --max-macs "$MACS" --multiple 4 --floor 4 --data shards/cifar10/train --score $score
done
for kind in torch_pruning gamma relative-gamma taylor; do
    record resnet20_$kind $RUNS/resnet20_$kind
    for seed in 0 1 2; do
        unit resnet20_${kind}_finetuned-$seed --config $CONFIGS/cifar10_resnet20_finetune.yaml seed=$seed data.val=$VAL \
            model.artifact=$RUNS/resnet20_$kind
    done
done
for kind in gamma relative-gamma taylor; do
    paired resnet20_${kind}_finetuned resnet20_torch_pruning_finetuned 0 1 2
done
python docs/results/sizes.py $RUNS/resnet20_sparse/last \
    $RUNS/resnet20_{torch_pruning,gamma,relative-gamma,taylor}
