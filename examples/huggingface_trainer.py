"""Train a small BERT with MLHF in the Trainer of Hugging Face transformers.

    pip install '.[trainers]'
    python examples/huggingface_trainer.py

Lines that are there for MLHF end in ``# MLHF``. The Trainer evaluates the average of the weights,
by the optimizer's ``train()`` and ``eval()``, and adds micro-batches up: each counts by its share
of their labels.
"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from mlhf import MLHF  # MLHF


def main(folder: str, steps: int = 30) -> tuple[float, float]:
    """Return the loss on the evaluation set before and after training."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    model = BertForSequenceClassification(config)
    optimizer = MLHF(model, loss="cross_entropy")  # MLHF

    def loss(outputs, labels, num_items_in_batch=None):  # MLHF
        share = 1 if num_items_in_batch is None else len(labels) / num_items_in_batch  # MLHF
        return optimizer.loss(outputs.logits, labels) * share  # MLHF

    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.2, steps)
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        logging_steps=10,
        save_steps=steps // 2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=samples(512, seed=0),
        eval_dataset=samples(128, seed=1),
        optimizers=(optimizer, scheduler),
        compute_loss_func=loss,  # MLHF
    )
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    last = trainer.evaluate()["eval_loss"]
    print(f"evaluation loss {first:.3f} before, {last:.3f} after")
    return first, last


def samples(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Return sequences of tokens, labelled by whether the token 1 is in them."""
    tokens = torch.randint(1, 16, (count, 12), generator=torch.Generator().manual_seed(seed))
    labels = (tokens == 1).any(1).long()
    return [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
