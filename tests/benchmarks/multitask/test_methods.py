"""Every method starts as the backbone and learns; the order of runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.multitask.methods import METHODS, REPEATED, Facts, plan
from benchmarks.rivals.scaffold import Mixture
from tests.support.tiny_training import backbone, ids


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_starts_as_the_backbone_and_learns(name: str) -> None:
    torch.manual_seed(0)
    plain = backbone()
    tokens = ids(3, 9)
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    given = {"input_ids": tokens, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    given |= {"labels": tokens, "logits_to_keep": torch.arange(9)}
    with torch.no_grad():
        before = plain.eval()(**given)
    built = METHODS[name].build(backbone(), Facts(2, [[3, 4], [5, 6], [7, 8]], 0))
    model = built.model.eval()
    if isinstance(model, Mixture):
        model.set_rows(torch.tensor([0, 1, 1]), torch.tensor([0, 2, 1]))
    with torch.no_grad():
        found = model(**given)
    if name not in ("prompt-tuning", "lime-prompt", "lime-slicefine"):  # these two do not start neutral
        torch.testing.assert_close(found.logits, before.logits, rtol=1e-4, atol=1e-4)
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=3e-2)
    start = {key: p.detach().clone() for key, p in trained.items()}
    model.train()
    losses = []
    for _ in range(6):
        loss = model(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.005, losses
    still = [key for key, p in trained.items() if torch.equal(p.detach(), start[key])]
    assert still == [], still


def test_the_plan_runs_everything_once_and_the_four_three_times() -> None:
    order = plan()
    assert len(set(order)) == len(order) == len(METHODS) + 2 * len(REPEATED)
    assert [name for name, _ in order[:4]] == list(REPEATED)
