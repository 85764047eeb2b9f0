#!/bin/sh
# Distilling step-by-step, from the data to the report: the commands that a user would type, in order.
#   sh cluster/jobs/step_by_step/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data FOLDER]
# Without --data, synthetic word problems. FOLDER has svamp/ with the published files: SVAMP and PaLM's outputs.
# SEEDS="0 1 2" trains each student with several seeds; the report then shows mean, lowest and highest.
# --teacher: a causal model, which is tuned on the two tasks with adapters before it explains.
set -eu
folder=runs/step
. "$(dirname "$0")/../steps.sh"

task='name="step_by_step"'
if [ -n "$data" ]; then
    items="$task, dataset=\"svamp\", data=\"$data\", llm=\"palm\""
    answered="$task, dataset=\"svamp\", data=\"$data\", llm=\"captured\", answers=\"$folder/explained.jsonl\""
else
    items="$task, llm=\"own\", problems=[4000, 100, 200]"
    answered="$task, llm=\"captured\", answers=\"$folder/explained.jsonl\", problems=[4000, 100, 200]"
    part=', subsample=0.25'
fi

step "1/11 examples: all items, for the teacher and the test" examples $jobs/examples.toml --set "task={$items}"
if [ -z "$teacher" ]; then
    step "2/11 teacher: a small Llama, trained here on both tasks" train $jobs/teacher.toml
else
    step "2/11 teacher: $teacher, tuned on both tasks" train $jobs/teacher.toml --set "model={pretrained=\"$teacher\", lora={rank=16}}" \
        --set "tokenizer={}" --set optimizer.lr=0.0005 --set run.steps=100 --set run.batch_size=16 --set run.micro_batch_size=8
fi
step "3/11 examples: the transfer set, a part of the items" examples $jobs/transfer.toml --set "task={$items${part:-}}"
step "4/11 capture: the teacher labels and explains the transfer set" capture $jobs/explain.toml
[ -e $folder/explained.jsonl ] ||
    step "5/11 export: its labels and rationales as texts" export $folder/explained $folder/explained.jsonl --format texts
step "6/11 examples: true labels with the teacher's rationales" examples $jobs/gt.toml --set "task={$answered${part:-}}"
step "7/11 capture: the test items" capture $jobs/heldout.toml
trained teacher
for seed in $seeds; do
    set -- --set "run.seed=$seed"
    step "8/11 student $seed, standard: labels alone" train $jobs/student.toml --set "output=$folder/standard_$seed" "$@" \
        --set 'data.where={task="predict"}' --set 'loss={objective="hard_label"}' \
        --set run.batch_size=32 --set run.micro_batch_size=32
    step "9/11 student $seed, step by step: labels, and rationales as a second task" train $jobs/student.toml \
        --set "output=$folder/task_prefix_$seed" "$@"
    step "10/11 student $seed, step by step with the teacher's labels and distributions" train $jobs/student.toml \
        --set "output=$folder/logits_$seed" "$@" --set "data={store=\"$folder/explained\", max_tokens=192}" \
        --set "tokenizer={}" --set \
        'loss.terms=[{objective="forward_kl", weight=0.5, where={task="predict"}}, {objective="forward_kl", weight=0.5, where={task="explain"}}]'
    for name in standard task_prefix logits; do
        trained ${name}_$seed
    done
done
step "11/11 evaluation on new items, and the report" evaluate $jobs/evaluate.toml --set "models={ $models }"
step "report" report $jobs/report.toml --set "trainings={ $trainings }" --set "groups=$(groups standard task_prefix logits)"
