#!/usr/bin/env python3
"""Makes tiny video pipelines with random weights and a dump of every stage of a run, with the `diffusers` library.

    pip install torch diffusers transformers accelerate
    python3 tools/video_oracle.py OUT --variant wan21|ti2v5b [--fixture tests/fixtures/wan/VARIANT] [settings]

OUT/pipe is the pipeline's folder as the library saves it, OUT/original the same weights under the names of the published files,
OUT/dump.safetensors the inputs, intermediate values and results in F32 (ids as I64), OUT/meta.json the settings and versions. The pipeline is
then loaded again from the disk and must give the dump's frames, and the original names must go back through the library's own converter.
With `--fixture` what the tests compare is written there as well: all but the encoder's results, the tiled decode and what can be had from
the rest. `torch_fixtures.py` then makes OUT/original/vae.safetensors a checkpoint of PyTorch.
"""

import argparse, json, os, shutil, time
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DIFFUSERS_OFFLINE="1",
                  HF_HUB_DISABLE_TELEMETRY="1")
T0 = time.time()
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
import diffusers, transformers
from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler,
                       WanPipeline, WanTransformer3DModel)
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

COLOURS = "red green blue yellow white purple".split()
SHAPES = "circle square triangle cross".split()
MOVES = ["moving left", "moving right", "moving up", "moving down", "standing still", "growing"]

# latent statistics of the published Wan 2.2 VAE (48 channels); those of Wan 2.1 are diffusers' defaults
MEAN48 = [-.2289, -.0052, -.1323, -.2339, -.2799, .0174, .1838, .1557, -.1382, .0542, .2813, .0891, .1570, -.0098,
          .0375, -.1825, -.2246, -.1207, -.0698, .5109, .2665, -.2108, -.2158, .2502, -.2055, -.0322, .1109, .1567,
          -.0729, .0899, -.2799, -.1230, -.0313, -.1649, .0117, .0723, -.2839, -.2083, -.0520, .3748, .0152, .1957,
          .1433, -.2944, .3573, -.0548, -.1681, -.0667]
STD48 = [.4765, 1.0364, .4514, 1.1677, .5313, .4990, .4818, .5013, .8158, 1.0344, .5894, 1.0901, .6885, .6165, .8454,
         .4978, .5759, .3523, .7135, .6804, .5833, 1.4146, .8986, .5659, .7069, .5338, .4889, .4917, .4069, .4999,
         .6866, .4093, .5709, .6065, .6415, .4944, .5726, 1.2042, .5458, 1.6887, .3971, 1.0600, .3943, .5537, .5444,
         .4089, .7468, .7744]


def tiny_tokenizer():
    """A Unigram tokenizer with umT5's shape: ids 0 <pad>, 1 </s>, 2 <s>, 3 <unk>, metaspace, </s> appended."""
    tok = Tokenizer(models.Unigram())
    # A text, not a pattern, so it does nothing to any prompt.
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(r" {2,}", " ")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tok.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    corpus = [f"a {c} {s} {m} on a {b} background" for c in COLOURS for s in SHAPES for m in MOVES
              for b in ("black", "grey")]
    corpus += ["blurry, static, low quality", "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ,.!?-'"]
    tok.train_from_iterator(corpus, trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<s>", "<unk>"]))
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                                   padding_side="right", model_max_length=512)


def shake(module, seed):
    """Random values everywhere, so that a swapped norm weight or a dropped bias shows."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim == 1 or name.endswith("gamma"):
                base = 0.0 if name.endswith("bias") else 1.0
                p.copy_(base + 0.1 * torch.randn(p.shape, generator=g))
            elif name.endswith("relative_attention_bias.weight"):
                p.copy_(torch.randn(p.shape, generator=g))
            else:
                p.add_(0.02 * torch.randn(p.shape, generator=g))
    return module.eval().requires_grad_(False)


def build(args):
    torch.manual_seed(args.seed)
    ti2v = args.variant == "ti2v5b"
    tok = tiny_tokenizer()
    te_cfg = dict(vocab_size=len(tok) + 4, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                  relative_attention_num_buckets=32, relative_attention_max_distance=128,
                  feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6, dropout_rate=0.0)
    te = shake(UMT5EncoderModel(UMT5Config(**te_cfg)), args.seed + 1)
    chans = 48 if ti2v else 16
    # head_dim 16 splits into RoPE t=8 h=4 w=4, unlike a third each, so a wrong split fails
    dit_cfg = dict(patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=16, in_channels=chans,
                   out_channels=chans, text_dim=32, freq_dim=256, ffn_dim=112, num_layers=3,
                   cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024)
    dit = shake(WanTransformer3DModel(**dit_cfg), args.seed + 2)
    if ti2v:
        vae_cfg = dict(base_dim=4, decoder_base_dim=4, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
                       temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12,
                       patch_size=2, scale_factor_temporal=4, scale_factor_spatial=16,
                       latents_mean=MEAN48, latents_std=STD48)
    else:
        vae_cfg = dict(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
                       temperal_downsample=[False, True, True])
    vae = shake(AutoencoderKLWan(**vae_cfg), args.seed + 3)
    if args.scheduler == "unipc":
        sched = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                        num_train_timesteps=1000, flow_shift=args.shift, solver_order=2)
    else:
        sched = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=args.shift)
    pipe = WanPipeline(tokenizer=tok, text_encoder=te, vae=vae, scheduler=sched, transformer=dit,
                       expand_timesteps=ti2v)
    pipe.set_progress_bar_config(disable=True)
    return pipe, dict(text_encoder=te_cfg, transformer=dit_cfg, vae=vae_cfg)


def original_names(pipe, ti2v):
    """The same weights under the names of the published (non-diffusers) files."""
    dit = {}
    for k, v in pipe.transformer.state_dict().items():
        n = k
        if n == "scale_shift_table":
            n = "head.modulation"
        n = n.replace("condition_embedder.time_embedder.linear_1", "time_embedding.0")
        n = n.replace("condition_embedder.time_embedder.linear_2", "time_embedding.2")
        n = n.replace("condition_embedder.text_embedder.linear_1", "text_embedding.0")
        n = n.replace("condition_embedder.text_embedder.linear_2", "text_embedding.2")
        n = n.replace("condition_embedder.time_proj", "time_projection.1").replace("proj_out", "head.head")
        n = n.replace("scale_shift_table", "modulation").replace("attn1", "self_attn").replace("attn2", "cross_attn")
        n = n.replace(".to_out.0.", ".o.").replace(".to_q.", ".q.").replace(".to_k.", ".k.").replace(".to_v.", ".v.")
        n = n.replace("ffn.net.0.proj", "ffn.0").replace("ffn.net.2", "ffn.2").replace(".norm2.", ".norm3.")
        dit[n] = v.contiguous().clone()
    res = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
           "conv_shortcut": "shortcut"}
    vae = {}
    for k, v in pipe.vae.state_dict().items():
        p = k.split(".")
        if p[0] in ("quant_conv", "post_quant_conv"):
            n = {"quant_conv": "conv1", "post_quant_conv": "conv2"}[p[0]] + "." + p[1]
        elif p[1] in ("conv_in", "norm_out", "conv_out"):
            n = ".".join([p[0], {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[p[1]], p[2]])
        elif p[1] == "mid_block":
            if p[2] == "resnets":
                n = ".".join([p[0], "middle", str(2 * int(p[3])), res[p[4]], p[5]])
            else:
                n = ".".join([p[0], "middle", "1"] + p[4:])
        elif p[1] == "down_blocks" and not ti2v:      # flat list: resnet, resnet, resample, ...
            n = ".".join([p[0], "downsamples", p[2]] + ([res[p[3]]] + p[4:] if p[3] in res else p[3:]))
        elif p[1] == "up_blocks" and not ti2v:        # flat list of 3 resnets + 1 resample per level
            i = 4 * int(p[2])
            n = (".".join([p[0], "upsamples", str(i + int(p[4])), res[p[5]]] + p[6:]) if p[3] == "resnets"
                 else ".".join([p[0], "upsamples", str(i + 3)] + p[5:]))
        else:                                         # Wan 2.2: one nested list per level
            side = {"down_blocks": "downsamples", "up_blocks": "upsamples"}[p[1]]
            last = 2 if p[1] == "down_blocks" else 3
            n = (".".join([p[0], side, p[2], side, p[4], res[p[5]]] + p[6:]) if p[3] == "resnets"
                 else ".".join([p[0], side, p[2], side, str(last)] + p[4:]))
        vae[n] = v.contiguous().clone()
    te = {}
    names = {"0.SelfAttention.q": "attn.q", "0.SelfAttention.k": "attn.k", "0.SelfAttention.v": "attn.v",
             "0.SelfAttention.o": "attn.o", "0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
             "0.layer_norm": "norm1", "1.layer_norm": "norm2", "1.DenseReluDense.wi_0": "ffn.gate.0",
             "1.DenseReluDense.wi_1": "ffn.fc1", "1.DenseReluDense.wo": "ffn.fc2"}
    for k, v in pipe.text_encoder.state_dict().items():
        if k == "shared.weight":
            te["token_embedding.weight"] = v.clone()
        elif k == "encoder.final_layer_norm.weight":
            te["norm.weight"] = v.clone()
        elif k.startswith("encoder.block."):
            i, rest = k[len("encoder.block."):].split(".", 1)
            te[f"blocks.{i}." + names[rest[len("layer."):-len(".weight")]] + ".weight"] = v.clone()
    return dit, vae, te


# What the fixture leaves out of the dump. The chunks of frames but the first are `video` before it is scaled.
LEFT_OUT = ["attention_mask", "hidden_raw", "vae.encode", "vae.decode.tiled", "vae.decode.out", "vae.decode.chunk1",
            "vae.decode.chunk2", "vae.decode.chunk3"]


def write_fixture(out, fixture, dump, ti2v):
    left_out = LEFT_OUT + (["dit.text_proj"] if ti2v else [])
    shutil.rmtree(fixture, ignore_errors=True)
    shutil.copytree(f"{out}/pipe", f"{fixture}/pipe")
    shutil.copy(f"{out}/meta.json", f"{fixture}/meta.json")
    save_file({k: v for k, v in dump.items() if not any(part in k for part in left_out)}, f"{fixture}/dump.safetensors")
    if not ti2v:
        os.makedirs(f"{fixture}/original")
        for name in ("dit", "t5"):
            shutil.copy(f"{out}/original/{name}.safetensors", f"{fixture}/original")
        shutil.copytree(f"{out}/pipe/tokenizer", f"{fixture}/original/google/umt5-tiny")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--variant", choices=["wan21", "ti2v5b"], default="wan21")
    ap.add_argument("--scheduler", choices=["unipc", "euler"], default="unipc")
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--frames", type=int, default=None)
    ap.add_argument("--height", type=int, default=None)
    ap.add_argument("--width", type=int, default=None)
    ap.add_argument("--cfg", type=float, default=5.0)
    ap.add_argument("--shift", type=float, default=3.0)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--fixture")
    a = ap.parse_args()
    ti2v = a.variant == "ti2v5b"
    a.frames = a.frames or (9 if ti2v else 13)
    a.height = a.height or (64 if ti2v else 32)
    a.width = a.width or (96 if ti2v else 48)
    prompt, negative = "a red circle moving left on a black background", "blurry, static, low quality"
    times = {"import_s": time.time() - T0}
    t = time.time()
    torch.set_num_threads(1)
    pipe, cfg = build(a)
    os.makedirs(a.out, exist_ok=True)
    shutil.rmtree(f"{a.out}/pipe", ignore_errors=True)
    pipe.save_pretrained(f"{a.out}/pipe")
    os.makedirs(f"{a.out}/original", exist_ok=True)
    for name, sd in zip(("dit", "vae", "t5"), original_names(pipe, ti2v)):
        save_file(sd, f"{a.out}/original/{name}.safetensors")
    times["build_and_save_s"] = time.time() - t

    D = {}
    keep = lambda name, x: D.__setitem__(name, (x.float() if x.is_floating_point() else x.long()).detach().contiguous().clone())
    # text
    for tag, s in (("prompt", prompt), ("negative", negative)):
        enc = pipe.tokenizer([s], padding="max_length", max_length=512, truncation=True, return_tensors="pt")
        keep(f"text.{tag}.input_ids", enc.input_ids)
        keep(f"text.{tag}.attention_mask", enc.attention_mask)
        keep(f"text.{tag}.hidden_raw", pipe.text_encoder(enc.input_ids, enc.attention_mask).last_hidden_state)
    pe, ne = pipe.encode_prompt(prompt, negative, max_sequence_length=512)
    keep("text.prompt.embeds", pe)
    keep("text.negative.embeds", ne)
    # schedule and starting noise
    pipe.scheduler.set_timesteps(a.steps)
    keep("sched.timesteps", pipe.scheduler.timesteps)
    keep("sched.sigmas", pipe.scheduler.sigmas)
    sf = pipe.vae_scale_factor_spatial
    shape = (1, pipe.transformer.config.in_channels, (a.frames - 1) // 4 + 1, a.height // sf, a.width // sf)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(a.seed + 4))
    keep("latents.init", noise)
    # hooks: the first DiT call (conditional, step 0) in full; every call's output
    hooks, calls = [], {"n": 0}
    def first(name, pick=lambda o: o):
        def hook(mod, args_, out):
            if name not in D:
                keep(name, pick(out))
        return hook
    def first_in(name):
        def hook(mod, args_):       # must return None: a value would replace the module's inputs
            if name not in D:
                keep(name, args_[0])
        return hook
    m = pipe.transformer
    hooks.append(m.patch_embedding.register_forward_hook(first("dit.patch_embed")))
    hooks.append(m.rope.register_forward_hook(first("dit.rope_cos", lambda o: o[0])))
    hooks.append(m.rope.register_forward_hook(first("dit.rope_sin", lambda o: o[1])))
    ce = m.condition_embedder
    hooks.append(ce.timesteps_proj.register_forward_hook(first("dit.t_sinusoid")))
    for i, n in enumerate(("dit.temb", "dit.timestep_proj", "dit.text_proj")):
        hooks.append(ce.register_forward_hook(first(n, lambda o, i=i: o[i])))
    for i, b in enumerate(m.blocks):
        hooks.append(b.attn1.register_forward_pre_hook(first_in(f"dit.block{i}.attn1_in")))
        hooks.append(b.attn1.norm_q.register_forward_hook(first(f"dit.block{i}.attn1_q_normed")))
        hooks.append(b.attn1.register_forward_hook(first(f"dit.block{i}.attn1_out")))
        hooks.append(b.attn2.register_forward_hook(first(f"dit.block{i}.attn2_out")))
        hooks.append(b.ffn.register_forward_hook(first(f"dit.block{i}.ffn_out")))
        hooks.append(b.register_forward_hook(first(f"dit.block{i}.out")))
    hooks.append(m.norm_out.register_forward_hook(first("dit.norm_out")))
    def dit_out(mod, args_, out):
        n = calls["n"]; calls["n"] += 1
        keep(f"step{n // 2}.{'cond' if n % 2 == 0 else 'uncond'}" if a.cfg > 1 else f"step{n}.cond", out[0])
    hooks.append(m.register_forward_hook(dit_out))
    d = pipe.vae.decoder
    chunk = {"n": 0}
    def dec_chunk(mod, args_, out):
        keep(f"vae.decode.chunk{chunk['n']}", out); chunk["n"] += 1
    hooks.append(pipe.vae.post_quant_conv.register_forward_hook(first("vae.decode.post_quant")))
    hooks.append(d.conv_in.register_forward_hook(first("vae.decode.chunk0.conv_in")))
    hooks.append(d.mid_block.register_forward_hook(first("vae.decode.chunk0.mid")))
    for i, b in enumerate(d.up_blocks):
        hooks.append(b.register_forward_hook(first(f"vae.decode.chunk0.up{i}")))
    hooks.append(d.register_forward_hook(dec_chunk))
    def on_step(p, i, ts, kw):
        keep(f"step{i}.latents", kw["latents"])
        return kw
    t = time.time()
    lat_out = pipe(prompt=prompt, negative_prompt=negative, height=a.height, width=a.width, num_frames=a.frames,
                   num_inference_steps=a.steps, guidance_scale=a.cfg, latents=noise.clone(), output_type="pt",
                   callback_on_step_end=on_step, max_sequence_length=512).frames
    times["pipeline_s"] = time.time() - t
    for h in hooks:
        h.remove()
    t0 = D["sched.timesteps"][0]
    if ti2v:                                   # Wan 2.2 TI2V: one timestep per token
        t0 = t0.expand(1, shape[2] * (shape[3] // 2) * (shape[4] // 2))
    else:
        t0 = t0.expand(1)
    plain = pipe.transformer(noise, t0, D["text.prompt.embeds"], return_dict=False)[0]
    assert torch.equal(plain, D["step0.cond"]), "a hook changed the result"
    keep("video", lat_out)                                         # [1, T, 3, H, W] in 0..1
    z = D[f"step{a.steps - 1}.latents"]
    C = pipe.vae.config
    zd = z * torch.tensor(C.latents_std).view(1, -1, 1, 1, 1) + torch.tensor(C.latents_mean).view(1, -1, 1, 1, 1)
    keep("vae.decode.in", zd)
    t = time.time()
    dec = pipe.vae.decode(zd).sample
    times["vae_decode_s"] = time.time() - t
    keep("vae.decode.out", dec)                                    # [1, 3, T, H, W] in -1..1
    # encoder, on a deterministic clip (for image-to-video later and for the causal cache)
    g = torch.Generator().manual_seed(a.seed + 5)
    clip = torch.rand((1, 3, a.frames, a.height, a.width), generator=g) * 2 - 1
    keep("vae.encode.in", clip)
    keep("vae.encode.moments", pipe.vae._encode(clip))
    # tiled decode: tiles of two thirds of the frame
    th, tw = a.height // 2, a.width // 2
    pipe.vae.enable_tiling(th, tw, th // 2, tw // 2)
    keep("vae.decode.tiled", pipe.vae.decode(zd).sample)
    pipe.vae.use_tiling = False
    save_file(D, f"{a.out}/dump.safetensors")

    # second load, from disk alone
    t = time.time()
    again = WanPipeline.from_pretrained(f"{a.out}/pipe", local_files_only=True)
    again.set_progress_bar_config(disable=True)
    v2 = again(prompt=prompt, negative_prompt=negative, height=a.height, width=a.width, num_frames=a.frames,
               num_inference_steps=a.steps, guidance_scale=a.cfg, latents=noise.clone(), output_type="pt").frames
    times["reload_and_rerun_s"] = time.time() - t
    diff = (v2 - D["video"]).abs().max().item()
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
    dit_o, vae_o, _ = original_names(pipe, ti2v)
    back = convert_wan_transformer_to_diffusers(dict(dit_o))
    ok_dit = set(back) == set(pipe.transformer.state_dict()) and all(
        torch.equal(back[k], v) for k, v in pipe.transformer.state_dict().items())
    ok_vae = None
    if not ti2v:
        back = convert_wan_vae_to_diffusers(dict(vae_o))
        ok_vae = set(back) == set(pipe.vae.state_dict()) and all(
            torch.equal(back[k], v) for k, v in pipe.vae.state_dict().items())
    size = sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(a.out) for f in fs)
    params = {n: sum(p.numel() for p in getattr(pipe, n).parameters()) for n in ("text_encoder", "transformer", "vae")}
    settings = {k: v for k, v in vars(a).items() if k not in ("out", "fixture")}
    meta = dict(args=settings, prompt=prompt, negative=negative, config=cfg, params=params, bytes_total=size,
                reload_max_abs_diff=diff, original_dit_names_round_trip=ok_dit, original_vae_names_round_trip=ok_vae,
                times={k: round(v, 3) for k, v in times.items()}, total_s=round(time.time() - T0, 2),
                versions=dict(torch=torch.__version__, diffusers=diffusers.__version__,
                              transformers=transformers.__version__))
    json.dump(meta, open(f"{a.out}/meta.json", "w"), indent=1, default=str)
    if a.fixture:
        write_fixture(a.out, a.fixture, D, ti2v)
    print(json.dumps({k: meta[k] for k in ("params", "bytes_total", "reload_max_abs_diff",
          "original_dit_names_round_trip", "original_vae_names_round_trip", "times", "total_s", "versions")}, indent=1))
    print(len(D), "tensors; video", tuple(D["video"].shape), "mean %.4f std %.4f" % (D["video"].mean(), D["video"].std()))


if __name__ == "__main__":
    with torch.no_grad():
        main()
