//! The names of denoisers and decoders, as they were first published and as diffusers saves them. GGUF files and
//! those of ComfyUI have the first.

use super::names::{Flat, Layout};

/// Networks for text and image in one file are below this name.
pub(super) const PREFIXES: [&str; 2] = ["model.diffusion_model.", "diffusion_model."];

pub(super) const DENOISER: &[Layout] = &[
    Layout {
        name: "diffusers",
        mark: "condition_embedder.time_proj.weight",
        names: &[
            ("patch_embedding.*", "patch_embedding.*"),
            ("text_in.*", "condition_embedder.text_embedder.linear_1.*"),
            ("text_out.*", "condition_embedder.text_embedder.linear_2.*"),
            ("time_in.*", "condition_embedder.time_embedder.linear_1.*"),
            ("time_out.*", "condition_embedder.time_embedder.linear_2.*"),
            ("time_projection.*", "condition_embedder.time_proj.*"),
            ("head.*", "proj_out.*"),
            ("head_modulation.weight", "scale_shift_table"),
            ("blk.#.modulation.weight", "blocks.#.scale_shift_table"),
            ("blk.#.attn_q.*", "blocks.#.attn1.to_q.*"),
            ("blk.#.attn_k.*", "blocks.#.attn1.to_k.*"),
            ("blk.#.attn_v.*", "blocks.#.attn1.to_v.*"),
            ("blk.#.attn_output.*", "blocks.#.attn1.to_out.0.*"),
            ("blk.#.attn_q_norm.*", "blocks.#.attn1.norm_q.*"),
            ("blk.#.attn_k_norm.*", "blocks.#.attn1.norm_k.*"),
            ("blk.#.cross_q.*", "blocks.#.attn2.to_q.*"),
            ("blk.#.cross_k.*", "blocks.#.attn2.to_k.*"),
            ("blk.#.cross_v.*", "blocks.#.attn2.to_v.*"),
            ("blk.#.cross_output.*", "blocks.#.attn2.to_out.0.*"),
            ("blk.#.cross_q_norm.*", "blocks.#.attn2.norm_q.*"),
            ("blk.#.cross_k_norm.*", "blocks.#.attn2.norm_k.*"),
            ("blk.#.cross_norm.*", "blocks.#.norm2.*"),
            ("blk.#.ffn_up.*", "blocks.#.ffn.net.0.proj.*"),
            ("blk.#.ffn_down.*", "blocks.#.ffn.net.2.*"),
        ],
        unused: &[],
        flat: None,
        shortcuts: false,
    },
    Layout {
        name: "original",
        mark: "time_projection.1.weight",
        names: &[
            ("patch_embedding.*", "patch_embedding.*"),
            ("text_in.*", "text_embedding.0.*"),
            ("text_out.*", "text_embedding.2.*"),
            ("time_in.*", "time_embedding.0.*"),
            ("time_out.*", "time_embedding.2.*"),
            ("time_projection.*", "time_projection.1.*"),
            ("head.*", "head.head.*"),
            ("head_modulation.weight", "head.modulation"),
            ("blk.#.modulation.weight", "blocks.#.modulation"),
            ("blk.#.attn_q.*", "blocks.#.self_attn.q.*"),
            ("blk.#.attn_k.*", "blocks.#.self_attn.k.*"),
            ("blk.#.attn_v.*", "blocks.#.self_attn.v.*"),
            ("blk.#.attn_output.*", "blocks.#.self_attn.o.*"),
            ("blk.#.attn_q_norm.*", "blocks.#.self_attn.norm_q.*"),
            ("blk.#.attn_k_norm.*", "blocks.#.self_attn.norm_k.*"),
            ("blk.#.cross_q.*", "blocks.#.cross_attn.q.*"),
            ("blk.#.cross_k.*", "blocks.#.cross_attn.k.*"),
            ("blk.#.cross_v.*", "blocks.#.cross_attn.v.*"),
            ("blk.#.cross_output.*", "blocks.#.cross_attn.o.*"),
            ("blk.#.cross_q_norm.*", "blocks.#.cross_attn.norm_q.*"),
            ("blk.#.cross_k_norm.*", "blocks.#.cross_attn.norm_k.*"),
            ("blk.#.cross_norm.*", "blocks.#.norm3.*"),
            ("blk.#.ffn_up.*", "blocks.#.ffn.0.*"),
            ("blk.#.ffn_down.*", "blocks.#.ffn.2.*"),
        ],
        unused: &[],
        flat: None,
        shortcuts: false,
    },
];

/// Of decoders whose levels have no shortcuts around them, then of those that have.
pub(super) const DECODER: &[Layout] = &[
    Layout {
        name: "diffusers",
        mark: "decoder.up_blocks.0.upsamplers.0.resample.1.weight",
        names: DECODER_DIFFUSERS,
        unused: ENCODER_DIFFUSERS,
        flat: None,
        shortcuts: false,
    },
    Layout {
        name: "original",
        mark: "decoder.upsamples.0.residual.2.weight",
        names: DECODER_ORIGINAL,
        unused: ENCODER_ORIGINAL,
        flat: Some(Flat { list: "decoder.upsamples", last: "resample.1.weight" }),
        shortcuts: false,
    },
    Layout {
        name: "diffusers with shortcuts",
        mark: "decoder.up_blocks.0.upsampler.resample.1.weight",
        names: DECODER_DIFFUSERS,
        unused: ENCODER_DIFFUSERS,
        flat: None,
        shortcuts: true,
    },
    Layout {
        name: "original with shortcuts",
        mark: "decoder.upsamples.0.upsamples.0.residual.2.weight",
        names: DECODER_ORIGINAL,
        unused: ENCODER_ORIGINAL,
        flat: None,
        shortcuts: true,
    },
];

const ENCODER_DIFFUSERS: &[&str] = &["encoder.", "quant_conv."];
const ENCODER_ORIGINAL: &[&str] = &["encoder.", "conv1."];

const DECODER_DIFFUSERS: &[(&str, &str)] = &[
    ("latent_in.*", "post_quant_conv.*"),
    ("conv_in.*", "decoder.conv_in.*"),
    ("mid.#.norm1.weight", "decoder.mid_block.resnets.#.norm1.gamma"),
    ("mid.#.conv1.*", "decoder.mid_block.resnets.#.conv1.*"),
    ("mid.#.norm2.weight", "decoder.mid_block.resnets.#.norm2.gamma"),
    ("mid.#.conv2.*", "decoder.mid_block.resnets.#.conv2.*"),
    ("mid_attn_norm.weight", "decoder.mid_block.attentions.0.norm.gamma"),
    ("mid_attn_qkv.*", "decoder.mid_block.attentions.0.to_qkv.*"),
    ("mid_attn_output.*", "decoder.mid_block.attentions.0.proj.*"),
    ("up.#.res.#.norm1.weight", "decoder.up_blocks.#.resnets.#.norm1.gamma"),
    ("up.#.res.#.conv1.*", "decoder.up_blocks.#.resnets.#.conv1.*"),
    ("up.#.res.#.norm2.weight", "decoder.up_blocks.#.resnets.#.norm2.gamma"),
    ("up.#.res.#.conv2.*", "decoder.up_blocks.#.resnets.#.conv2.*"),
    ("up.#.res.#.shortcut.*", "decoder.up_blocks.#.resnets.#.conv_shortcut.*"),
    ("up.#.conv.*", "decoder.up_blocks.#.upsamplers.0.resample.1.*"),
    ("up.#.time_conv.*", "decoder.up_blocks.#.upsamplers.0.time_conv.*"),
    ("up.#.conv.*", "decoder.up_blocks.#.upsampler.resample.1.*"),
    ("up.#.time_conv.*", "decoder.up_blocks.#.upsampler.time_conv.*"),
    ("norm_out.weight", "decoder.norm_out.gamma"),
    ("conv_out.*", "decoder.conv_out.*"),
];

/// Levels are lists within the list; a flat list is read as such.
const DECODER_ORIGINAL: &[(&str, &str)] = &[
    ("latent_in.*", "conv2.*"),
    ("conv_in.*", "decoder.conv1.*"),
    ("mid.0.norm1.weight", "decoder.middle.0.residual.0.gamma"),
    ("mid.0.conv1.*", "decoder.middle.0.residual.2.*"),
    ("mid.0.norm2.weight", "decoder.middle.0.residual.3.gamma"),
    ("mid.0.conv2.*", "decoder.middle.0.residual.6.*"),
    ("mid_attn_norm.weight", "decoder.middle.1.norm.gamma"),
    ("mid_attn_qkv.*", "decoder.middle.1.to_qkv.*"),
    ("mid_attn_output.*", "decoder.middle.1.proj.*"),
    ("mid.1.norm1.weight", "decoder.middle.2.residual.0.gamma"),
    ("mid.1.conv1.*", "decoder.middle.2.residual.2.*"),
    ("mid.1.norm2.weight", "decoder.middle.2.residual.3.gamma"),
    ("mid.1.conv2.*", "decoder.middle.2.residual.6.*"),
    ("up.#.res.#.norm1.weight", "decoder.upsamples.#.upsamples.#.residual.0.gamma"),
    ("up.#.res.#.conv1.*", "decoder.upsamples.#.upsamples.#.residual.2.*"),
    ("up.#.res.#.norm2.weight", "decoder.upsamples.#.upsamples.#.residual.3.gamma"),
    ("up.#.res.#.conv2.*", "decoder.upsamples.#.upsamples.#.residual.6.*"),
    ("up.#.res.#.shortcut.*", "decoder.upsamples.#.upsamples.#.shortcut.*"),
    ("up.#.conv.*", "decoder.upsamples.#.upsamples.#.resample.1.*"),
    ("up.#.time_conv.*", "decoder.upsamples.#.upsamples.#.time_conv.*"),
    ("norm_out.weight", "decoder.head.0.gamma"),
    ("conv_out.*", "decoder.head.2.*"),
];
