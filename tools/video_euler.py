#!/usr/bin/env python3
"""Dumps a run of a tiny video pipeline with Euler's steps, as the `diffusers` library makes them, beside the dump that UniPC has.

    pip install torch diffusers transformers accelerate
    python3 tools/video_euler.py tests/fixtures/wan/wan21

Prompts and settings are those of the fixture's meta.json, and so is the noise. Written is euler.safetensors: the schedule, both velocities
and the latents of each step, and the frames.
"""

import json, os, sys
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DIFFUSERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from safetensors.torch import load_file, save_file


def main():
    folder = sys.argv[1]
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    meta = json.load(open(f"{folder}/meta.json"))
    asked = meta["args"]
    noise = load_file(f"{folder}/dump.safetensors")["latents.init"]
    pipe = WanPipeline.from_pretrained(f"{folder}/pipe", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=asked["shift"])
    kept, velocities = {}, []
    hook = pipe.transformer.register_forward_hook(
        lambda module, inputs, output: velocities.append((output[0] if isinstance(output, tuple) else output.sample).clone()))

    def after(pipe, index, timestep, values):
        kept[f"step{index}.latents"] = values["latents"].clone()
        return values

    frames = pipe(prompt=meta["prompt"], negative_prompt=meta["negative"], height=asked["height"], width=asked["width"],
                  num_frames=asked["frames"], num_inference_steps=asked["steps"], guidance_scale=asked["cfg"],
                  latents=noise.clone(), output_type="pt", callback_on_step_end=after).frames
    hook.remove()
    assert len(velocities) == 2 * asked["steps"], "two velocities a step"
    for index, velocity in enumerate(velocities):
        kept[f"step{index // 2}.{'uncond' if index % 2 else 'cond'}"] = velocity
    kept.update({"sched.timesteps": pipe.scheduler.timesteps, "sched.sigmas": pipe.scheduler.sigmas, "video": frames})
    save_file({name: value.float().contiguous() for name, value in kept.items()}, f"{folder}/euler.safetensors")
    print(f"{len(kept)} tensors; video {tuple(frames.shape)} mean {frames.mean():.4f}")


main()
