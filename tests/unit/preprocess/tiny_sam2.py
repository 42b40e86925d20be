"""A SAM 2 checkpoint folder with a tiny network of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

SIDE = 128


def sam2_checkpoint(place: Path) -> Path:
    """Written to `place`, as `save_pretrained` does."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    hiera = Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=1, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[1, 1, 2, 2], global_attention_blocks=[3],
        window_size_per_stage=[4, 4, 4, 4], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=hiera, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    prompts = Sam2VideoPromptEncoderConfig(hidden_size=128, image_size=SIDE, mask_input_channels=4)
    decoder = Sam2VideoMaskDecoderConfig(hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32)
    config = Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config=prompts.to_dict(), mask_decoder_config=decoder.to_dict(),
        image_size=SIDE, memory_attention_hidden_size=128, memory_attention_num_layers=1, num_maskmem=3,
        max_object_pointers_in_encoder=4, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_num_layers=1, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=64,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    for parameter in model.parameters():  # larger than the usual start, so that masks depend on clicks and on memory
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    # Without its bias on the score of an object's presence, a random network may see nothing anywhere.
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(1e3)
    model.save_pretrained(place)
    return place
