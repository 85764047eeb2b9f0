"""Distil from a store with the Trainer of Transformers: python docs/trainer_example.py STORE HELDOUT OUTPUT [steps]"""

import sys

from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from student.data.torch_dataset import StoreDataset
from student.losses.settings import LossSettings
from student.training.hf_trainer import DistillationCollator, fused_student, objectives_for


def main(store: str, heldout: str, output: str, steps: int = 200, **arguments: object) -> tuple[Trainer, float]:
    """The trainer after `steps` steps, and the held-out loss. arguments: of TrainingArguments."""
    training, evaluation = StoreDataset(store), StoreDataset(heldout)
    spec = training.store.spec
    tokenizer = training.store.load_tokenizer()
    loss = LossSettings(objective="forward_kl", hard_label_weight=0.1)
    objectives = objectives_for(training.store, loss, evaluation.store)

    config = LlamaConfig(
        vocab_size=spec.vocab_size,  # a pretrained student needs the teacher's tokenizer, and at least as many logits
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = fused_student(LlamaForCausalLM(config), objectives)
    settings = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "report_to": "none",
        **arguments,
    }
    trainer = Trainer(
        model,
        TrainingArguments(output, max_steps=steps, **settings),  # type: ignore[arg-type]
        data_collator=DistillationCollator(objectives),
        train_dataset=training,
        eval_dataset=evaluation,
        processing_class=tokenizer,
    )
    trainer.train()
    found = float(trainer.evaluate()["eval_loss"])
    trainer.save_model()  # a plain model, with its tokenizer
    return trainer, found


if __name__ == "__main__":
    print(f"held-out loss: {main(*sys.argv[1:4], *map(int, sys.argv[4:]))[1]:.4f} nats")
