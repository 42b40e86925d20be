"""Settings of the machine: how a job is spread, where the networks live, how exact they compute."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from wanimate.config.base import GPUS, MACHINE, Option, Settings
from wanimate.errors import InputError, setting

Speed = Literal["exact", "fast", "turbo"]
Attention = Literal["auto", "torch", "torch-flash", "cudnn", "flash-attention-3", "sage", "float8", "int8"]
WeightsType = Literal["auto", "bf16", "fp16", "fp8", "int8"]
BlocksMode = Literal["auto", "resident", "streamed", "mapped"]


class ParallelSettings(Settings):
    """How one job is spread over the GPUs of a machine. It changes no result beyond float noise."""

    part: ClassVar[str] = "parallel"

    gpus: Annotated[
        int,
        Field(ge=1),
        Option(
            GPUS,
            "GPUs of this machine that share the job. Their number has to divide the attention heads.",
            more="The 14B has 40 heads, `mannequin` 6.",
            example="2",
        ),
    ] = 1
    shard_weights: Annotated[
        bool,
        Option(GPUS, "Each GPU keeps only its part of the weights. This is for GPUs that cannot hold all."),
    ] = False
    split_guidance: Annotated[
        bool, Option(GPUS, "With guidance: each half of the GPUs computes one of its two branches.")
    ] = False


class RuntimeSettings(Settings):
    """Where the networks live, what they may take and how exact they compute. Nothing here changes what a job is."""

    part: ClassVar[str] = "runtime"

    speed: Annotated[
        Speed,
        Option(
            MACHINE,
            "exact: the published arithmetic. fast: products and attention in 8 bits on GPUs (float8 where they have it, else "
            "int8), bfloat16 on a processor that multiplies it. turbo: fast, and steps that can be forecast are skipped.",
            more="float8 needs compute capability 8.9, int8 8.0. bfloat16 needs AVX512-BF16 or AMX. A notice tells if there is "
            "neither.",
        ),
    ] = "exact"
    device: Annotated[
        str | None,
        Field(pattern=r"^(cuda(:\d{1,3})?|mps|cpu)$"),
        Option(
            MACHINE,
            "Where the networks compute: cuda, cuda:N or cpu.",
            shown="the GPU, if there is one",
            metavar="DEVICE",
            example="cuda:1 or cpu",
        ),
    ] = None
    attention: Annotated[
        Attention,
        Option(
            MACHINE,
            f"Backend of self-attention. auto tries those that {setting('runtime.speed')} allows and takes the quickest.",
            more="A name makes results independent of that trial.",
        ),
    ] = "auto"
    attention_error: Annotated[
        float,
        Field(ge=0, lt=1),
        Option(
            MACHINE,
            "Self-attention may leave out what changes its output by less than this share (relative L2). 0 leaves nothing out.",
            more="It is measured in every step, for each layer and head. Heads that cannot be thinned out stay as they are.",
            example="0.05",
        ),
    ] = 0.0
    weights_dtype: Annotated[
        WeightsType,
        Option(
            MACHINE,
            "Type of the transformer's weights: as the device computes (auto), bf16, fp16, or, for the blocks' linear layers, "
            "fp8 or int8.",
            more="With auto, fp8 and int8 files stay as they are on a GPU. What is in 8 bits is multiplied as that where "
            f"{setting('runtime.speed')} is fast or turbo.",
        ),
    ] = "auto"
    blocks: Annotated[
        BlocksMode,
        Option(
            MACHINE,
            "Where the transformer's blocks live: on the GPU (resident), in host memory and copied one ahead (streamed), or "
            "in the file itself (mapped).",
        ),
    ] = "auto"
    vae_tile: Annotated[
        int | None,
        Field(ge=128),
        Option(
            MACHINE,
            "Side of the VAE's tiles in pixels, from 128.",
            shown="none, or as memory needs",
            example="256",
        ),
    ] = None
    gpu_memory: Annotated[
        float | None,
        Field(gt=0),
        Option(
            MACHINE,
            "GiB of the GPU to take at most.",
            shown="all that is free",
            metavar="GIB",
            example="12",
        ),
    ] = None


_OF_ONE_GPU = ("device", "blocks", "vae_tile", "gpu_memory")


def check_spread(runtime: RuntimeSettings, parallel: ParallelSettings, gpus: int) -> None:
    """Refuse settings that mean nothing on so many GPUs.

    Raises:
        InputError: settings of one GPU with several, or of several with one.
    """
    for name in ("shard_weights", "split_guidance"):
        if getattr(parallel, name) and gpus == 1:
            remedy = f"Give {setting('parallel.gpus')}, or leave it out."
            raise InputError(parallel.named(name), True, "it needs several GPUs", remedy)
    if parallel.split_guidance and gpus % 2:
        rule = f"the two branches of guidance need an even number of GPUs, not {gpus}"
        raise InputError(
            "parallel.split_guidance", True, rule, f"Give an even {setting('parallel.gpus')}, or leave it out."
        )
    alone = [name for name in _OF_ONE_GPU if getattr(runtime, name) != RuntimeSettings.model_fields[name].default]
    if alone and gpus > 1:
        rule = f"{setting(runtime.named(alone[0]))} is a setting of one GPU"
        remedy = f"Leave it out; {setting('parallel.shard_weights')} saves memory here."
        raise InputError("parallel.gpus", gpus, rule, remedy)
