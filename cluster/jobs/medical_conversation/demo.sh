#!/bin/sh
# Medical conversations: the commands that a user would type, in order. Each continues where an earlier run stopped.
#   sh cluster/jobs/medical_conversation/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data MTS_DIALOG_FOLDER]
# --teacher: writes and extracts in the place of SmolLM2. --data: the CSV files of MTS-Dialog, a second part.
# SEEDS="0 1 2" trains Llama, T5 and their baselines with several seeds; the report then shows mean, lowest and highest.
set -eu; folder=runs/medical; . "$(dirname "$0")/../steps.sh"
writer=${teacher:-runs/teachers/SmolLM2-135M-Instruct}

[ -n "$teacher" ] || model smollm2
step "1/12 prompts for conversations, by topic, mood and exchanges" examples $jobs/prompts.toml
step "2/12 the generalist writes the conversations" capture $jobs/write.toml --set "teacher.model=$writer"
# A small writer may write no valid conversation at all. The rest of the demo does not need any.
if step "3/12 validation: what is a conversation, and what is left out" examples $jobs/records.toml; then
    step "4/12 the generalist extracts records, guided by the schema" capture $jobs/extract.toml \
        --set "teacher.model=$writer"
    [ -e $folder/extracted.jsonl ] || step "4/12 its records as instruction, input and output" \
        export $folder/extracted $folder/extracted.jsonl --format instruction
else
    printf '\n== 4/12 no records are extracted, because no conversation is valid\n'
fi
step "5/12 labelled conversations of a grammar" examples $jobs/examples.toml
step "6/12 the extraction teacher, trained on them" train $jobs/teacher.toml
step "7/12 the teacher writes the records of the transfer set" capture $jobs/transfer.toml
[ -e $folder/written.jsonl ] || step "7/12 its records as texts" export $folder/written $folder/written.jsonl --format texts
step "8/12 one capture for all students" capture $jobs/capture.toml
step "8/12 the held-out conversations" capture $jobs/heldout.toml

trained teacher
for seed in $seeds; do
    beside llama_text_$seed "9/12 a baseline: the same records without distributions, in the same order" \
        train $jobs/student_llama.toml --set "output=$folder/llama_text_$seed" --set "run.seed=$seed" \
        --set 'loss={ objective = "hard_label", segments = { prompt = 0.3 } }'
    step "9/12 student $seed: Llama" train $jobs/student_llama.toml \
        --set "output=$folder/llama_$seed" --set "run.seed=$seed" --set "$half"
    beside_done
    trained llama_$seed
    trained llama_text_$seed
done
for seed in $seeds; do
    beside t5_text_$seed "10/12 a baseline: the same records without distributions" train $jobs/student_t5.toml \
        --set "output=$folder/t5_text_$seed" --set "run.seed=$seed" --set 'loss={ objective = "hard_label" }'
    step "10/12 student $seed: T5, from the same capture" train $jobs/student_t5.toml \
        --set "output=$folder/t5_$seed" --set "run.seed=$seed" --set "$half"
    beside_done
    trained t5_$seed
    trained t5_text_$seed
done
step "10/12 student: GPT-2, from the same capture" train $jobs/student_gpt2.toml
trained gpt2
step "11/12 evaluation on held-out conversations" evaluate $jobs/evaluate.toml --set "models={ $models }"
step "12/12 report" report $jobs/report.toml --set "trainings={ $trainings }" --set "groups=$(groups llama llama_text t5 t5_text)"
[ -z "$data" ] || sh $jobs/mts_dialog.sh --data "$data" ${teacher:+--teacher "$teacher"}
