"""The flags of the published command lines, `generate.py` and `preprocess_data.py`, with the published defaults
(model spec, section 10.2; preprocess spec, section 1), and what those command lines call our settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from wanimate.config.base import DIFFUSION, FILES, MASK, MOTION, OWN, RUN, Option, Settings

TASK = "animate-14B"
SIZES = ("1280*720", "720*1280")
COMPAT = Option(RUN, "Follow the published code number for number, defects of its defaults included.")


def _flag(name: str, help: str, panel: str = FILES, shown: str = "") -> Option:
    return Option(panel, help, flag=f"--{name}", shown=shown)


class GenerateFlags(Settings):
    """Of `generate.py`."""

    task: Annotated[str, _flag("task", f"Only {TASK}.")] = TASK
    size: Annotated[
        str, _flag("size", f"{' or '.join(SIZES)}. It is part of the file's name; the guides decide the size.")
    ] = SIZES[0]
    frame_num: Annotated[int | None, _flag("frame_num", "Frames of a segment, 4n+1.", DIFFUSION, OWN)] = None
    ckpt_dir: Annotated[Path | None, _flag("ckpt_dir", "Checkpoint folder, Wan2.2-Animate-14B; needed.")] = None
    offload_model: Annotated[str | None, _flag("offload_model", "true or false; without effect.", RUN)] = None
    ulysses_size: Annotated[int, _flag("ulysses_size", "GPUs that share the sequence.", RUN)] = 1
    t5_fsdp: Annotated[bool, _flag("t5_fsdp", "Without effect: the text encoder is freed after use.", RUN)] = False
    t5_cpu: Annotated[bool, _flag("t5_cpu", "Keep the text encoder off the GPU.", RUN)] = False
    dit_fsdp: Annotated[bool, _flag("dit_fsdp", "Share out the transformer's weights over the GPUs.", RUN)] = False
    save_file: Annotated[Path | None, _flag("save_file", "Result.", shown="task, size, GPUs, prompt and time")] = None
    prompt: Annotated[str | None, _flag("prompt", "Text for the network.", DIFFUSION, OWN)] = None
    base_seed: Annotated[int, _flag("base_seed", "Seed. A negative one is drawn, and told.", DIFFUSION)] = -1
    sample_solver: Annotated[str, _flag("sample_solver", "unipc or dpm++.", DIFFUSION)] = "unipc"
    sample_steps: Annotated[int | None, _flag("sample_steps", "Denoising steps.", DIFFUSION, OWN)] = None
    sample_shift: Annotated[float | None, _flag("sample_shift", "Shift of the schedule.", DIFFUSION, OWN)] = None
    sample_guide_scale: Annotated[float | None, _flag("sample_guide_scale", "Guidance scale.", DIFFUSION, "1.0")] = None
    convert_model_dtype: Annotated[
        bool, _flag("convert_model_dtype", "Without effect: on a GPU weights are bfloat16.", RUN)
    ] = False
    src_root_path: Annotated[Path | None, _flag("src_root_path", "Folder made by preprocess_data.py; needed.")] = None
    refert_num: Annotated[
        int | None,
        _flag("refert_num", "Frames that a segment takes over: 1 or 5.", DIFFUSION, "1; 77 with --compat"),
    ] = None
    replace_flag: Annotated[bool, _flag("replace_flag", "Replacement instead of animation.")] = False
    use_relighting_lora: Annotated[
        bool, _flag("use_relighting_lora", "With --replace_flag: apply the checkpoint's relighting LoRA.")
    ] = False
    compat: Annotated[bool, COMPAT] = False


class PreprocessFlags(Settings):
    """Of `preprocess_data.py`."""

    ckpt_path: Annotated[
        Path | None, _flag("ckpt_path", "process_checkpoint folder, with det and pose2d in it.", shown="MediaPipe")
    ] = None
    video_path: Annotated[Path | None, _flag("video_path", "Clip of the performer; needed.")] = None
    refer_path: Annotated[Path | None, _flag("refer_path", "Picture of the character; needed.")] = None
    save_path: Annotated[Path | None, _flag("save_path", "Folder for the guides; needed.")] = None
    resolution_area: Annotated[
        tuple[int, int], _flag("resolution_area", "Two numbers whose product is the pixel area.", MOTION)
    ] = (1280, 720)
    fps: Annotated[int, _flag("fps", "Frame rate; -1 is the clip's own.", MOTION)] = 30
    replace_flag: Annotated[bool, _flag("replace_flag", "Replacement instead of animation.")] = False
    retarget_flag: Annotated[
        bool, _flag("retarget_flag", "Animation: give the skeleton the character's proportions.", MOTION)
    ] = False
    use_flux: Annotated[bool, _flag("use_flux", "Measure them in a picture edited by FLUX.1 Kontext.", MOTION)] = False
    iterations: Annotated[int, _flag("iterations", "Rounds by which the outline grows.", MASK)] = 3
    k: Annotated[int, _flag("k", "Side in pixels of the square by which it grows.", MASK)] = 7
    w_len: Annotated[int, _flag("w_len", "Columns of the grid; 1 and 1 fill the box.", MASK)] = 1
    h_len: Annotated[int, _flag("h_len", "Rows of the grid.", MASK)] = 1
    compat: Annotated[bool, COMPAT] = False


GENERATE_NAMES = {
    "guides": "--src_root_path", "checkpoint": "--ckpt_dir", "out": "--save_file", "mode": "--replace_flag",
    "generate.overlap": "--refert_num", "generate.clip_length": "--frame_num", "generate.solver": "--sample_solver",
    "generate.steps": "--sample_steps", "generate.shift": "--sample_shift", "generate.guidance": "--sample_guide_scale",
    "generate.seed": "--base_seed", "generate.prompt": "--prompt", "generate.relight": "--use_relighting_lora",
    "generate.lora": "--use_relighting_lora", "generate.compat": "--compat", "parallel.gpus": "--ulysses_size",
    "parallel.shard_weights": "--dit_fsdp", "preprocess.area": "--resolution_area",
}  # fmt: skip
PREPROCESS_NAMES = {
    "video": "--video_path", "image": "--refer_path", "guides": "--save_path", "out": "--save_path",
    "mode": "--replace_flag", "preprocess.models": "--ckpt_path", "preprocess.area": "--resolution_area",
    "preprocess.fps": "--fps", "preprocess.retarget": "--retarget_flag", "preprocess.iterations": "--iterations",
    "preprocess.k": "--k", "preprocess.w_len": "--w_len", "preprocess.h_len": "--h_len", "preprocess.compat": "--compat",
}  # fmt: skip
"""Settings field -> published flag."""
