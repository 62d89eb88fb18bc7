"""Skills of a model that is no language model: an image classifier for daylight learns two other scenes.

    python examples/module_skills.py [FOLDER] [STEPS]

A small vision transformer is trained on drawn shapes in daylight, a shared adapter on all scenes, and a skill on each
of the others. What runs in the end is one ONNX graph, without torch. Needs `pip install 'lime-edge[train,export]'`.
"""

import sys
from pathlib import Path

from lime_edge import LimeConfig  # first: it switches the telemetry of other libraries off

# isort: split
import numpy as np
import peft
import torch
from transformers import ViTConfig, ViTForImageClassification

from lime_edge.contract.routing import Routing
from lime_edge.runtime import Module
from lime_edge.training import checkpoint
from lime_edge.training.module_skills import export_module, start_skill, write_skill

SIDE, CLASSES = 32, 4  # pixels; disc, square, cross, stripes
SCENES = ("day", "fog", "negative")


def draw(rows: int, scene: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [N, 3, 32, 32] of bright shapes on dark ground, and their classes [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    y, x = np.mgrid[:SIDE, :SIDE]
    pictures = np.empty((rows, 3, SIDE, SIDE), np.float32)
    for picture, label in zip(pictures, labels, strict=True):
        (cx, cy), r = rng.uniform(10, 22, 2), rng.uniform(6, 9)
        across, down = abs(x - cx), abs(y - cy)
        shapes = (
            across**2 + down**2 < r**2,
            np.maximum(across, down) < r,
            (np.minimum(across, down) < r / 3) & (np.maximum(across, down) < r),
            (np.maximum(across, down) < r) & ((x - int(cx)) % 4 < 2),
        )
        colour = rng.uniform(0.6, 1.0, (3, 1, 1))
        picture[:] = np.where(shapes[label], colour, 0.2) + rng.normal(0, 0.05, picture.shape)
    if scene == "fog":
        pictures = 0.65 + 0.35 * pictures
    if scene == "negative":
        pictures = 1 - pictures
    return torch.from_numpy(2 * pictures.astype(np.float32) - 1), torch.from_numpy(labels)


def train(
    model: torch.nn.Module, parameters: list[torch.nn.Parameter], scenes: tuple[str, ...], steps: int, rate: float
) -> None:
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    for step in range(steps):
        pictures, labels = draw(64, scenes[step % len(scenes)], 1000 + step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixel_values=pictures).logits, labels).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def main(folder: str = "shapes", steps: str = "200") -> None:
    count, home = int(steps), Path(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    vit = ViTForImageClassification(ViTConfig(**shape, image_size=SIDE, patch_size=8, num_labels=CLASSES))
    train(vit, list(vit.parameters()), ("day",), 2 * count, 3e-3)

    model = peft.get_peft_model(vit, LimeConfig(target_modules=["o_proj", "fc1", "fc2"], routing=Routing(experts=1)))
    train(model, [p for p in model.parameters() if p.requires_grad], SCENES, 2 * count, 5e-3)
    mixture = checkpoint.get_vectors(model)
    for scene in SCENES[1:]:
        train(model, start_skill(model, mixture), (scene,), count, 2e-2)
        skill = write_skill(model, home.parent / f"{home.name}-{scene}.lime", scene, license="CC0-1.0")
        print(f"{skill.path.name}: {skill.size / 1000:.1f} KB")
    export_module(model, {"pixel_values": draw(4, "day", 0)[0]}, home, overwrite=True)

    runtime = Module.load(home)
    for scene in SCENES[1:]:
        runtime.load_skill(home.parent / f"{home.name}-{scene}.lime")
    for scene in SCENES:
        pictures, labels = draw(500, scene, 1)
        scores = []
        for skill_name in (None, *SCENES[1:]):
            runtime.use_skill(skill_name)
            logits = runtime.run({"pixel_values": pictures})["logits"]
            scores.append(f"{skill_name or 'base'} {100 * np.mean(logits.argmax(-1) == labels.numpy()):.0f} %")
        print(f"{scene}: {', '.join(scores)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
