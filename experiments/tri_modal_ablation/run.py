"""What each part of the tri-modal model adds: the tiny config without token, modality or sample level.

    python experiments/tri_modal_ablation/run.py [--steps 300] [--data_dir data] [--run_dir runs/ablation]

Trains and evaluates the full model and each ablation with the same seed, data and steps, one after the
other, and writes table.md beside this file after each. A variant that is finished is not trained again.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "configs/multimodal/taichu_stamps_tiny.py"
VARIANTS = {
    "full": "",
    "without token level": "token",
    "without modality level": "modality",
    "without sample level": "sample",
    "alignment alone": "mae,token,modality,sample",
}
DIRECTIONS = (
    "audio->text",
    "text->audio",
    "image->text",
    "text->image",
    "audio->image",
    "image->audio",
)


def train(name: str, without: str, arguments: argparse.Namespace) -> pathlib.Path:
    """Trains and evaluates one variant; returns its folder."""
    run_dir = pathlib.Path(arguments.run_dir) / name.replace(" ", "_")
    steps, evaluations = arguments.steps, ["retrieval"]
    if "modality" not in without:
        evaluations.append("subsets")
    python = sys.executable
    subprocess.run(
        [
            python, "launch/train.py", "--config", f"{CONFIG}:{without}" if without else CONFIG,
            f"--config.steps={steps}", f"--config.optimizer.learning_rate.steps={steps}",
            f"--config.data.dir={arguments.data_dir}", "--run_dir", str(run_dir),
        ],
        check=True, cwd=ROOT,
    )  # fmt: skip
    if not (run_dir / "evaluation" / "results.json").is_file():
        subprocess.run(
            [python, "launch/evaluate.py", "--run", str(run_dir), "--only", ",".join(evaluations)],
            check=True, cwd=ROOT,
        )  # fmt: skip
    return run_dir


def results(run_dir: pathlib.Path) -> dict:
    """The evaluations of a run, by name."""
    text = (run_dir / "evaluation" / "results.json").read_text("utf8")
    return {name: entry["result"] for name, entry in json.loads(text)["evaluations"].items()}


def probed(measured: dict) -> str:
    """The category probe on the fusion of all three modalities, where the variant has one."""
    rows = measured.get("subsets", {"rows": []})["rows"]
    found = [r["accuracy"] for r in rows if len(r["subset"].split("+")) == 3]
    return f"{found[0]:.1f}" if found else "not trained"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--run_dir", default="runs/ablation")
    arguments = parser.parse_args()
    rows = []
    for name, without in VARIANTS.items():
        measured = results(train(name, without, arguments))
        found = measured["retrieval"]["splits"]["test"]
        recalls = [f"{found[d]['mean']['R@10']:.1f}" for d in DIRECTIONS]
        chance = [f"{found[d]['chance']['R@10']:.1f}" for d in DIRECTIONS]
        rows.append([name, *recalls, probed(measured)])
        text = table([*rows, ["chance", *chance, ""]], arguments.steps)
        (pathlib.Path(__file__).parent / "table.md").write_text(text, "utf8")
    print(text)


def table(rows: list[list[str]], steps: int) -> str:
    """The rows as Markdown, with what the numbers are."""
    lines = [
        f"{steps} steps each. Retrieval: R@10 in percent, mean of six languages, on held-out pictures.",
        "Category: accuracy in percent of a linear probe on [CLS], reading all three modalities.",
        "",
        "| variant | " + " | ".join(DIRECTIONS) + " | category |",
        "| --- |" + " --- |" * (len(DIRECTIONS) + 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
