"""Learns two concepts with every method at Stable Diffusion 1.5's size on a GPU, and prints what a step costs.

The weights are random: seconds, memory and bytes do not depend on what they are, pictures would. Steps, pictures of the
class and the fusion are cut short, so that it takes minutes; the shipped Stable Diffusion configurations otherwise.
Before the first step: reading and encoding pictures, pictures of the class, selection of neurons. Memory is the peak of
the whole process.

``python -m benchmarks.full_size --work runs/full_size``
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from cns_lightning.miniature import tiny
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.storage import read_json

CUT = {
    "custom_diffusion": ["--data.prior.pictures", "4", "--data.prior.steps", "10"],
    "mix_of_show": ["--model.method.iterations", "20", "--model.method.other_iterations", "10"],
}


def write_model(folder: Path) -> None:
    """Writes a diffusers folder of Stable Diffusion 1.5's sizes with random weights; only the vocabulary is smaller."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from cns_lightning.diffusion.loading import stock_pipelines

    torch.manual_seed(0)
    tokenizer = tiny.tiny_tokenizer(folder / "tokenizer")
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "projection_dim": 768, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    autoencoder: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
    }  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**autoencoder),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = stock_pipelines()[0](**parts)
    pipeline.save_pretrained(folder)


def write_sequence(path: Path) -> None:
    """Writes a sequence of the first two concepts that ship."""
    concepts = Sequence.read(sequence_path("miniature_set1")).plain()["concepts"][:2]
    prompts: dict[str, list[str]] = {"single": [], "double": [], "triple": []}
    path.write_text(yaml.safe_dump({"name": "two", "concepts": concepts, "prompts": prompts}), "utf-8")


def learn(method: str, work: Path, steps: int) -> str:
    """Learns both concepts in a process of its own and gives the method's row of the table."""
    run = work / f"{method}-{steps}-steps"
    command = [
        sys.executable, "-m", "cns_lightning", "fit", "--config", "configs/base/sd15.yaml",
        "--config", f"configs/methods/{method}.yaml", "--config", "configs/hardware/one_gpu.yaml",
        "--model.base_model", str(work / "model"), "--data.sequence", str(work / "sequence.yaml"),
        "--data.batch_size", "2", "--steps", str(steps), "--samples.pictures", "0", "--run", str(run),
        *CUT.get(method, []),
    ]  # fmt: skip
    with (work / f"{method}.txt").open("wb") as output:
        if subprocess.run(command, check=False, stdout=output, stderr=output).returncode:
            sys.exit(f"{method} failed, see {output.name}")
    folder = RunFolder(run)
    # The first stage also warms the GPU up and, with CNS, selects the general neurons.
    first, second = read_json(folder.timings)["stages"].values()
    registry = NeuronRegistry.load(folder.registry)
    kilobytes = statistics.fmean(entry.bytes for entry in registry.entries) / 1e3
    memory = second["peak_memory_bytes"]["gpu"] / 1e9
    cells = (
        method, f"{second['seconds']['training'] / steps:.3f}", f"{first['seconds']['selection']:.1f}",
        f"{second['seconds']['selection']:.1f}", f"{memory:.1f}", f"{registry.records[0].trained:,}",
        f"{kilobytes:,.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Writes model and sequence, learns with every method, and prints the table."""
    methods = sorted(path.stem for path in Path("configs/methods").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the model and the runs")
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--steps", type=int, default=50, help="of each of two concepts, batches of two")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU; on a processor this would take hours")
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "model" / "model_index.json").exists():
        write_model(work / "model")
    write_sequence(work / "sequence.yaml")
    print("| method | s a step | s before it | second concept | GPU memory GB | trained numbers | kB stored |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for method in arguments.methods:
        print(learn(method, work, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
