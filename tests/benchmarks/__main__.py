"""Every comparison, one after the other: writes bench.json and bench.html. `make bench` runs it."""

import json
from pathlib import Path

import plotly.graph_objects as go
import torch
import tyro
from plotly.subplots import make_subplots

from opsd_lab.policies.policy import multiplies_bfloat16
from tests.benchmarks import gpu, graders, growth, loss, samplers, sharing, step
from tests.benchmarks.measure import machine

LOSS_SIZES = ((2048, 576, 49_152), (256, 1024, 151_936))
PARTS = ("graders", "loss", "step", "samplers", "sharing", "growth", "gpu")


def ratios(found: dict[str, dict]) -> dict[str, float]:
    """Return the ratios ours / theirs, below 1 where ours is faster or smaller; `..._tokens_per_s` is a quotient of rates."""
    result = {}
    if "graders" in found:
        result["grader_time_vs_math_verify"] = (
            found["graders"]["ours"]["milliseconds"] / found["graders"]["math-verify"]["milliseconds"]
        )
    if "loss" in found:
        first = found["loss"]["sizes"][0]
        result |= {f"loss_time_vs_{other}": first["time_vs"][other]["median"] for other in ("torch", "liger", "paper")}
        result |= {f"loss_memory_vs_{other}": first["memory_vs"][other] for other in ("torch", "liger", "paper")}
        if busy := found["loss"].get("busy"):  # what an earlier version measured has none, nor a floor
            result["loss_time_vs_torch_beside_a_busy_neighbour"] = busy["time_vs"]["torch"]["median"]
    if "step" in found:
        result |= {f"step_vs_trl_{name}": value["median"] for name, value in found["step"]["time_vs_trl"].items()}
        result |= {f"step_vs_floor_{name}": value["median"] for name, value in found["step"].get("time_vs_floor", {}).items()}
        result["step_memory_vs_trl"] = found["step"]["memory_vs_trl"]
    if "samplers" in found:
        rates = {name: value["median"] for name, value in found["samplers"].items() if "_vs_" in name}
        result |= {f"{name}_tokens_per_s": rate for name, rate in rates.items()}
    if "sharing" in found:
        by = found["sharing"]["by"]
        result |= {
            f"shared_prompts_vs_alone_{name.replace(' ', '_')}": of_views["time_vs_alone"]["median"] for name, of_views in by.items()
        }
    if "gpu" in found:
        result["gpu_loss_vs_floor"] = found["gpu"]["time_vs_floor"]["median"]
        result |= {f"gpu_loss_time_vs_{other}": value["median"] for other, value in found["gpu"]["loss"]["time_vs"].items()}
        result |= {f"gpu_loss_memory_vs_{other}": value for other, value in found["gpu"]["loss"]["memory_vs"].items()}
        result["gpu_step_vs_trl"] = found["gpu"]["step"]["time_vs_trl"]["hf"]["median"]
        result["gpu_step_memory_vs_trl"] = found["gpu"]["step"]["memory_vs_trl"]
        result["gpu_hf_vs_generate_tokens_per_s"] = found["gpu"]["samplers"]["hf_vs_generate"]["median"]
    return result


def draw(found: dict[str, dict], summary: dict[str, float]) -> go.Figure:
    """Return the page's figure: the ratios as bars, the growth as curves on logarithmic axes."""
    curves = {name: curve for name, curve in found.get("growth", {}).items() if "exponent" in curve}
    heading = "ratios: below 1 is better for times and memory, above 1 for tokens per second"
    titles = [heading, *(f"{n}: exponent {c['exponent']:.2f}" for n, c in curves.items())]
    figure = make_subplots(rows=1 + bool(curves), cols=max(1, len(curves)), subplot_titles=titles, specs=_specs(len(curves)))
    texts = [f"{value:.2f}" for value in summary.values()]
    figure.add_bar(x=list(summary), y=list(summary.values()), text=texts, marker_color="#555", row=1, col=1)
    figure.add_hline(y=1, line_dash="dash", row=1, col=1)
    for column, (name, curve) in enumerate(curves.items(), 1):
        figure.add_scatter(x=curve["sizes"], y=curve["seconds"], mode="lines+markers", line_color="#333", row=2, col=column)
        sizes = {"tickvals": curve["sizes"], "ticktext": [f"{size:,}" for size in curve["sizes"]]}
        figure.update_xaxes(type="log", title_text=name.rpartition(" by ")[2], **sizes, row=2, col=column)
        figure.update_yaxes(type="log", title_text="seconds", row=2, col=column)
    return figure.update_layout(showlegend=False, height=420 * (1 + bool(curves)), title_text="opsd_lab beside its peers")


def _specs(curves: int) -> list[list[dict | None]]:
    width = max(1, curves)
    first = [{"colspan": width}, *[None] * (width - 1)]
    return [first, [{}] * width] if curves else [first]


def main(out: Path = Path("build"), dtype: str = "auto", rounds: int = 5, only: tuple[str, ...] = PARTS) -> None:
    """Run the comparisons.

    Args:
        out: the folder for bench.json and bench.html; what an earlier run found is kept where this one does not measure it anew.
        dtype: of the model in the step and the samplers; auto is what `load_policy` would choose.
        rounds: how often each way runs, after one round that warms up.
        only: which parts to run.
    """
    chosen = torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and multiplies_bfloat16()) else torch.float32
    out.mkdir(parents=True, exist_ok=True)
    path = out / "bench.json"
    found: dict[str, dict] = json.loads(path.read_text())["found"] if path.exists() else {}
    runs = {
        "graders": graders.compare,
        "loss": lambda: {
            "sizes": [loss.compare(*size, rounds) for size in LOSS_SIZES],
            "busy": loss.beside_a_neighbour(*LOSS_SIZES[0], rounds),
        },
        "step": lambda: step.compare(step.Workload(step.embedded, chosen), rounds),
        "samplers": lambda: samplers.compare(step.Workload(step.embedded, chosen, 32, 64), rounds),
        "sharing": lambda: sharing.compare(step.Workload(step.embedded, chosen, prompts=2, each=8), rounds),
        "growth": lambda: growth.grow(chosen, min(rounds, 3)),
        "gpu": lambda: gpu.compare(rounds),
    }
    for name in PARTS:
        if name not in only or (name == "gpu" and not torch.cuda.is_available()):
            continue
        print(f"{name} …", flush=True)
        found[name] = {"machine": machine(), **runs[name]()}
        path.write_text(json.dumps({"ratios": ratios(found), "found": found}, indent=1) + "\n")
    summary = ratios(found)
    draw(found, summary).write_html(out / "bench.html", include_plotlyjs=True)
    for name, value in summary.items():
        print(f"{name:40} {value:.3f}")
    print(f"Details: {path}, {out / 'bench.html'}")


if __name__ == "__main__":
    tyro.cli(main)
