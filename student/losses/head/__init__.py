"""From hidden states to losses: the product with a model's head, and what follows it, without whole logits.

In: hidden states and the head of a model, and terms of a loss. Out: sums and gradients. `product` multiplies with
float32 sums; `transform` scales and caps logits; `logits` computes them with any head, also one with adapters;
`fused_loss` computes loss and gradients block by block. Knows nothing of objectives, batches or models.
"""
