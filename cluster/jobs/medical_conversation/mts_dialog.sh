#!/bin/sh
# MTS-Dialog: the generalist is tuned on the task, and its distributions teach a small student, beside hard labels.
#   sh cluster/jobs/medical_conversation/mts_dialog.sh --data MTS_DIALOG_FOLDER [--teacher FOLDER_OR_HUB_NAME]
# SEEDS="0 1 2" trains each student with several seeds. TUNE=N tunes for N steps in the place of 42 and takes all dialogues
# of at most 512 tokens: with 300 the teacher names twice as many headers, after some 40 minutes on 2 cores.
set -eu; folder=runs/medical/mts; . "$(dirname "$0")/../steps.sh"
jobs=$jobs/mts_dialog
base=${teacher:-runs/teachers/SmolLM2-135M-Instruct}
[ -n "$data" ] || { echo "demo: give --data, the folder with the CSV files of MTS-Dialog" >&2; exit 2; }

[ -n "$teacher" ] || model smollm2
step "1/8 the published splits" examples $jobs/examples.toml --set "task.folder=$data"
longer=
if [ -n "${TUNE:-}" ]; then
    longer="--set run.steps=$TUNE --set optimizer.lr=0.0005 --set data.max_tokens=256"
fi
# shellcheck disable=SC2086  # the options are words
step "2/8 the generalist is tuned on the task" train $jobs/teacher.toml --set "model.pretrained=$base" $longer
[ -z "$longer" ] || longer="--set limit=1200 --set teacher.max_tokens=512"
# shellcheck disable=SC2086
step "3/8 its distributions of the training set" capture $jobs/capture.toml $longer
step "4/8 and of the official test set 1" capture $jobs/heldout.toml
for seed in $seeds; do
    step "5/8 header $seed: a network of 66 thousand parameters, distilled" train $jobs/header.toml \
        --set "output=$folder/header_kd_$seed" --set "run.seed=$seed"
    step "5/8 header $seed: the same network, hard labels" train $jobs/header.toml \
        --set "output=$folder/header_ce_$seed" --set "run.seed=$seed" --set 'loss={ objective = "hard_label" }'
    trained header_kd_$seed
    trained header_ce_$seed
done
step "6/8 evaluation of the headers" evaluate $jobs/header_evaluate.toml --set "models={ $models }"
step "6/8 report" report $jobs/header_report.toml --set "trainings={ $trainings }" --set "groups=$(groups header_kd header_ce)"

models=
trainings=
trained teacher
for seed in $seeds; do
    step "7/8 student $seed, distilled" train $jobs/student.toml --set "output=$folder/kd_$seed" --set "run.seed=$seed"
    step "7/8 student $seed, hard labels, same examples in the same order" train $jobs/student.toml \
        --set "output=$folder/ce_$seed" --set "run.seed=$seed" --set loss.objective=hard_label
    trained kd_$seed
    trained ce_$seed
done
step "8/8 evaluation on the test set" evaluate $jobs/evaluate.toml --set "models={ $models }"
step "8/8 report" report $jobs/report.toml --set "trainings={ $trainings }" --set "groups=$(groups kd ce)"
