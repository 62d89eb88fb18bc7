"""PEFT's prompt tuning behind a causal model's forward, against PEFT's own."""

from __future__ import annotations

import torch

from benchmarks.multitask.methods import METHODS, Facts
from benchmarks.rivals.plain import SoftPrompt
from tests.support.tiny_training import backbone, ids


def test_a_soft_prompt_is_pefts_own_forward() -> None:
    torch.manual_seed(0)
    model = METHODS["prompt-tuning"].build(backbone(), Facts(1, [[3]], 0)).model.eval()
    assert isinstance(model, SoftPrompt)
    tokens = ids(2, 7)
    with torch.no_grad():
        wanted = model.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens)
        places = torch.arange(7).expand(2, -1)
        found = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), position_ids=places)
        torch.testing.assert_close(found.logits, wanted.logits[:, model.count :])
        padded = torch.cat([torch.full((2, 3), 2), tokens], 1)
        mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones_like(tokens)], 1)
        places = (mask.cumsum(1) - 1).clamp_min(0)
        found = model(input_ids=padded, attention_mask=mask, position_ids=places)
    torch.testing.assert_close(found.logits[:, 3:], wanted.logits[:, model.count :], rtol=1e-4, atol=1e-4)
