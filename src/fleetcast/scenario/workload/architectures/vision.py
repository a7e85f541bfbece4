"""Parameters of vision towers.

They are counted, because engines hold them in memory; not costed, because text skips them.
"""

from __future__ import annotations

from fleetcast.scenario.workload.architectures.fields import LAYERS_LIMIT, Fields


def siglip(fields: Fields, text_hidden: int) -> int:
    """Returns the parameters of Gemma 3's SigLIP tower and its projector.

    Assumed where absent: 27 layers of 1,152 with 4,304 inner elements, 896-pixel images in patches
    of 14.
    """
    hidden, layers, inner = _tower(fields, "num_hidden_layers", "hidden_size", "intermediate_size")
    patch = fields.count("patch_size", default=14)
    side = fields.count("image_size", default=896) // patch
    embedding = 3 * patch**2 * hidden + hidden + side**2 * hidden
    projector = hidden * text_hidden + hidden
    return embedding + layers * _layer(hidden, inner) + 2 * hidden + projector


def qwen(fields: Fields) -> int:
    """Returns the parameters of a Qwen 3.5 tower with its patch merger.

    None where there is no ``vision_config``.
    """
    if not fields.table:
        return 0
    hidden, layers, inner = _tower(fields, "depth", "hidden_size", "intermediate_size")
    patch, frames = (
        fields.count("patch_size", default=16),
        fields.count("temporal_patch_size", default=2),
    )
    merged = hidden * fields.count("spatial_merge_size", default=2, high=64) ** 2
    out = fields.count("out_hidden_size")
    embedding = 3 * frames * patch**2 * hidden + hidden
    embedding += fields.count("num_position_embeddings", default=2304) * hidden
    merger = 2 * hidden + merged * merged + merged + merged * out + out
    return embedding + layers * _layer(hidden, inner) + merger


def moonvit(fields: Fields, text_hidden: int) -> int:
    """Returns the parameters of Kimi K2.5's tower and projector.

    Older files prefix the names with ``vt_``.
    """
    if not fields.table:
        return 0
    hidden = fields.count("vt_hidden_size", "hidden_size", default=1152)
    layers = fields.count("vt_num_hidden_layers", "num_hidden_layers", default=27, high=LAYERS_LIMIT)
    inner = fields.count("vt_intermediate_size", "intermediate_size", default=4304)
    patch = fields.count("patch_size", default=14)
    rows = fields.count("init_pos_emb_height", "pos_emb_height", default=64)
    columns = fields.count("init_pos_emb_width", "pos_emb_width", default=64)
    merged = 4 * hidden
    embedding = 3 * patch**2 * hidden + hidden + rows * columns * hidden
    projector = 2 * hidden + merged * merged + merged + merged * text_hidden + text_hidden
    return embedding + layers * _layer(hidden, inner) + 2 * hidden + projector


def _tower(fields: Fields, depth: str, hidden: str, inner: str) -> tuple[int, int, int]:
    own = Fields(fields.table, fields.path)  # the text model's sizes are not the tower's
    return (
        own.count(hidden, default=1152),
        own.count(depth, default=27, high=LAYERS_LIMIT),
        own.count(inner, default=4304),
    )


def _layer(hidden: int, inner: int) -> int:
    """Two norms with bias, four biased projections, two biased feed-forward matrices."""
    return 4 * hidden + 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden
