"""The short help of ``fit``, written out so that showing it imports nothing."""

FIT_HELP = """\
usage: python -m cns_lightning fit --config FILE [--config FILE ...] --run DIR [--KEY VALUE ...]

Learns a sequence of concepts. The same command continues a run where it stopped.

  --config FILE                YAML, stacked left to right: base model, method, hardware, sequence (configs/README.md)
  --run DIR                    run folder; everything is written there
  --steps N                    optimizer steps of every stage, for quick trials
  --data.sequence FILE         the concepts, in learning order
  --data.batch_size N          pictures a step on each device
  --model.base_model MODEL     miniature, a diffusers folder, a single-file checkpoint or a hub id
  --model.revision NAME        branch, tag or commit of a hub id
  --model.base_loras MAPPING   LoRA files that are part of the base model: '{"style.safetensors": 0.8}'
  --model.method CLASS         what is trained; its settings are --model.method.init_args.NAME
  --seed_everything N          base random seed of noise, timesteps and order
  --trainer.accelerator NAME   cpu, gpu or auto
  --trainer.devices N          processes side by side
  --trainer.precision NAME     32-true, bf16-mixed or 16-mixed

Every other key: python -m cns_lightning fit --help-all; --print_config prints the whole configuration
"""
