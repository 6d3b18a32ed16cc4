"""The parameters of Mochi's transformer by rule, from the published sizes alone."""


def shapes(
    *,
    depth: int = 48,
    num_heads: int = 24,
    head_width: int = 128,
    text_width: int = 1536,
    t5_width: int = 4096,
    time_width: int = 256,
    channels: int = 12,
    patch: int = 2,
) -> dict[str, tuple[int, ...]]:
    """Every parameter of Mochi's transformer by rule, at the published sizes by default.

    AsymmDiT: a wide stream for video and a narrow one for text, with joint attention at the
    video's width, SwiGLU feed-forwards of 8/3 the width, and modulation from the pooled caption
    and the time. The last block drops the text stream after attention.
    """
    width = num_heads * head_width
    found: dict[str, tuple[int, ...]] = {"pos_frequencies": (3, num_heads, head_width // 2)}

    def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        found[f"{name}.weight"] = (rows, columns)
        if bias:
            found[f"{name}.bias"] = (rows,)

    found["patch_embed.proj.weight"] = (width, channels, patch, patch)
    found["patch_embed.proj.bias"] = (width,)
    linear("time_embed.timestep_embedder.linear_1", width, time_width)
    linear("time_embed.timestep_embedder.linear_2", width, width)
    linear("time_embed.pooler.to_kv", 2 * t5_width, t5_width)
    linear("time_embed.pooler.to_q", t5_width, t5_width)
    linear("time_embed.pooler.to_out", width, t5_width)
    linear("time_embed.caption_proj", text_width, t5_width)
    linear("norm_out.linear", 2 * width, width)
    linear("proj_out", patch * patch * channels, width)
    for i in range(depth):
        is_last = i == depth - 1
        block, attention = f"transformer_blocks.{i}", f"transformer_blocks.{i}.attn1"
        linear(f"{block}.norm1.linear", 4 * width, width)
        if is_last:
            linear(f"{block}.norm1_context.linear_1", text_width, width)
        else:
            linear(f"{block}.norm1_context.linear", 4 * text_width, width)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            found[f"{attention}.{norm}.weight"] = (head_width,)
        for name in ("to_q", "to_k", "to_v"):
            linear(f"{attention}.{name}", width, width, bias=False)
        for name in ("add_q_proj", "add_k_proj", "add_v_proj"):
            linear(f"{attention}.{name}", width, text_width, bias=False)
        linear(f"{attention}.to_out.0", width, width)
        streams = {"ff": width} if is_last else {"ff": width, "ff_context": text_width}
        if not is_last:
            linear(f"{attention}.to_add_out", text_width, width)
        for name, size in streams.items():
            linear(f"{block}.{name}.net.0.proj", 2 * (8 * size // 3), size, bias=False)
            linear(f"{block}.{name}.net.2", size, 8 * size // 3, bias=False)
    return found


def lora_modules(depth: int = 48, *, streams: str = "both") -> list[str]:
    """Names of the attention projections that LoRA adapts, within the backbone."""
    names = []
    for i in range(depth):
        own = ["to_q", "to_k", "to_v", "to_out.0"]
        if streams == "both":
            own += ["add_q_proj", "add_k_proj", "add_v_proj"]
            if i < depth - 1:
                own += ["to_add_out"]
        names += [f"transformer_blocks.{i}.attn1.{name}" for name in own]
    return names
