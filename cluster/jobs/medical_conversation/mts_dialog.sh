#!/bin/sh
# MTS-Dialog: the generalist is tuned on the task, and its distributions teach a small student, beside hard labels.
#   sh cluster/jobs/medical_conversation/mts_dialog.sh --data MTS_DIALOG_FOLDER [--teacher FOLDER_OR_HUB_NAME]
# SEEDS="0 1 2" trains each student with several seeds.
set -eu; folder=runs/medical/mts; . "$(dirname "$0")/../steps.sh"
jobs=$jobs/mts_dialog
base=${teacher:-runs/teachers/SmolLM2-135M-Instruct}
[ -n "$data" ] || { echo "demo: give --data, the folder with the CSV files of MTS-Dialog" >&2; exit 2; }

[ -n "$teacher" ] || model smollm2
step "1/6 the published splits" examples $jobs/examples.toml --set "task.folder=$data"
step "2/6 the generalist is tuned on the task" train $jobs/teacher.toml --set "model.pretrained=$base"
step "3/6 its distributions of the training set" capture $jobs/capture.toml
step "4/6 and of the official test set 1" capture $jobs/heldout.toml
trained teacher
for seed in $seeds; do
    step "5/6 student $seed, distilled" train $jobs/student.toml --set "output=$folder/kd_$seed" --set "run.seed=$seed"
    step "5/6 student $seed, hard labels, same examples in the same order" train $jobs/student.toml \
        --set "output=$folder/ce_$seed" --set "run.seed=$seed" --set loss.objective=hard_label
    trained kd_$seed
    trained ce_$seed
done
step "6/6 evaluation on the test set" evaluate $jobs/evaluate.toml --set "models={ $models }"
step "6/6 report" report $jobs/report.toml --set "trainings={ $trainings }" --set "groups=$(groups kd ce)"
