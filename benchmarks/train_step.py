"""A training step (forward, backward, AdamW) of a Zamba2 of about 10 M parameters, against transformers.

d_model 256, 12 layers, hybrid every 4, vocabulary 4096, B=8 T=512, float32. Both models hold the same weights.
"""

import tempfile

import torch
import torch.nn.functional as F
from harness import interleaved, peak_growth, peak_main, ratio_row

import zamba_lab as zl

CONFIG = zl.ZambaConfig(vocab_size=4096, d_model=256, n_layers=12, headdim=64, d_state=64, hybrid_layers=(3, 7, 11),
                        n_shared_blocks=2, attn_heads=8, d_mlp=1024, lora_rank=16, init="reference")
QUICK = zl.ZambaConfig(vocab_size=64, d_model=32, n_layers=3, headdim=16, d_state=8, hybrid_layers=(1, 2),
                       n_shared_blocks=2, attn_heads=4, d_mlp=64, lora_rank=4, init="reference")


def contenders(config: zl.ZambaConfig, batch: int, length: int) -> dict:
    from transformers import Zamba2ForCausalLM
    torch.manual_seed(0)
    ours = zl.Zamba(config)
    with tempfile.TemporaryDirectory() as folder:
        zl.save(ours, folder)
        peer = Zamba2ForCausalLM.from_pretrained(folder)
    for layer in peer.model.layers:                    # the clamp on dt is the reader's, not the model's
        getattr(layer, "mamba_decoder", layer).mamba.time_step_limit = (0.0, float("inf"))
    ids = torch.randint(config.vocab_size, (batch, length))

    def step(model, logits_of):
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def once():
            loss = F.cross_entropy(logits_of(model)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            return loss.detach()

        return once

    return {"ours": step(ours, lambda m: m(ids)),
            "transformers": step(peer.train(), lambda m: m(ids, use_cache=False).logits)}


def run(quick: bool = False) -> list[dict[str, str]]:
    config, batch, length = (QUICK, 2, 32) if quick else (CONFIG, 8, 512)
    todo = contenders(config, batch, length)
    losses = {name: step() for name, step in todo.items()}
    torch.testing.assert_close(losses["ours"], losses["transformers"], rtol=1e-4, atol=1e-4)
    times = interleaved(todo, repeats=2 if quick else 5)
    rows = [ratio_row(f"training step, {config.n_params / 1e6:.1f} M, B={batch} T={length}", times, "ours", "transformers")]
    if not quick:
        peak = {name: peak_growth(__file__, name) for name in todo}
        rows.append({"work": "peak memory of the same", "ratio": f"{peak['ours'] / peak['transformers']:.2f} of the peer's",
                     **{name: f"{peak[name] / 1e6:.0f} MB" for name in todo}})
    return rows


if __name__ == "__main__":
    peak_main(lambda: contenders(CONFIG, 8, 512))
