#!/bin/sh
# A specialist in molecules learns language from a generalist. The commands that a user would type, in order.
#   sh cluster/jobs/drug_editing/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data SMILES_OR_PAIRS_FILE]
# --data: a file with a SMILES a line, or, if its name contains "pairs", with two. Up to 40 heavy atoms (without it, 15).
# SEEDS="0 1 2" in the environment trains every student with these seeds; "0" by default.
set -eu
folder=runs/drug
. "$(dirname "$0")/../steps.sh"
results=$folder/seeds_$(echo "$seeds" | tr -d ' ')
if [ -z "$teacher" ]; then
    model smollm2
    teacher=runs/teachers/SmolLM2-135M-Instruct
fi
set --
case $(basename "$data") in
    "") ;;
    *pairs*) set -- --set "task.pairs=$data" --set task.max_heavy_atoms=40 ;;
    *) set -- --set "task.molecules=$data" --set task.max_heavy_atoms=40 ;;
esac

step "examples: edits of real molecules, in several wordings" examples $jobs/examples.toml "$@"
step "conversation: questions about edits" examples $jobs/conversation.toml
step "capture: the generalist scores and answers the questions" capture $jobs/capture.toml --set "teacher.model=$teacher"
step "capture: held-out questions in new words" capture $jobs/heldout.toml --set "teacher.model=$teacher"

for seed in $seeds; do
    step "specialist, seed $seed: SMILES and edits alone" train $jobs/specialist.toml \
        --set "output=$folder/before_$seed" --set "run.seed=$seed"
    set -- --set "run.seed=$seed" --set "tokenizer.path=$folder/before_$seed/model" \
        --set "model.pretrained=$folder/before_$seed/model"
    step "language, seed $seed: the generalist's distributions, and replay of edits" train $jobs/language.toml \
        --set "output=$folder/after_$seed" "$@"
    step "baseline, seed $seed: the same texts without distributions" train $jobs/language.toml \
        --set "output=$folder/text_$seed" --set loss.objective=hard_label --set loss.hard_label_weight=0 "$@"
    step "control, seed $seed: replay of edits alone" train $jobs/edits_only.toml \
        --set "output=$folder/edits_only_$seed" "$@"
    for name in before after text edits_only; do
        trained ${name}_$seed
    done
done
step "evaluation: all 14 instructions, two rounds of feedback" evaluate $jobs/edits.toml \
    --set "output=$results/edits" --set "models={ $models }"
step "evaluation: the same in new words" evaluate $jobs/new_words.toml \
    --set "output=$results/new_words" --set "models={ $models }"
step "evaluation: language" evaluate $jobs/language_evaluation.toml \
    --set "output=$results/language" --set "models={ $models, teacher = \"$teacher\" }"
step "evaluation: the generalist on the same instructions" evaluate $jobs/generalist.toml \
    --set "models={ zero_shot = \"$teacher\", few_shot = \"$teacher\" }"
step "report" report $jobs/report.toml --set "trainings={ $trainings }" --set "evaluation=$results/edits" \
    --set "evaluations={ new_words = \"$results/new_words\", language = \"$results/language\", generalist = \"$folder/generalist\" }" \
    --set "groups=$(groups before after text edits_only)"
