"""Writes about a picture, a sound, words, or any two or three of them, with a trained run.

python launch/generate.py --run runs/NAME --image X.png --language fr --out out/x
python launch/generate.py --run runs/NAME --audio Y.wav --text "..." --language fr --out out/y --samples 4

--run DIR            the run's folder
--image, --audio     files: PNG, JPEG, GIF, WEBP, BMP, SVG; WAV, FLAC, OGG, MP3
--text WORDS         words to read
--to KINDS           what is wanted, with commas: text (the default), image, audio, as far as the run can
--out DIR            a new folder: text.txt, one text a line, and index.html, to open in a browser
--language CODE      of the words and the voice, and to write in
--samples N          so many texts (1); more than one are drawn, or the best of a beam
--seed N             of the draws (0)
--temperature T      0, the default for one text, takes the likeliest; 1, that for more, draws as learnt
--top_k K, --top_p P draws from the K likeliest ids, from the fewest that have probability P together
--beams N            searches with a beam so wide instead, with length penalty --alpha A (0.6)
--no_repeat N        no run of N ids comes twice in a text
--step N             the checkpoint of this step; the newest by default
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {
    "run": "", "image": "", "audio": "", "text": "", "to": "text", "out": "", "language": "",
    "samples": "1", "seed": "0", "temperature": "", "top_k": "0", "top_p": "1", "beams": "0",
    "alpha": "0.6", "no_repeat": "0", "step": "",
}  # fmt: skip


def run(arguments: list[str]) -> None:
    """Parses the arguments, writes the folder and prints the texts."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS)
    for name, what in (("run", "the folder of a run"), ("out", "a folder for the results")):
        if not flags[name]:
            raise UserError(f"--{name} DIR is needed: {what}")
    numbers = {
        k: int(cli.number(k, flags[k])) for k in ("samples", "seed", "top_k", "beams", "no_repeat")
    }
    step = int(cli.number("step", flags["step"])) if flags["step"] else None
    drawn = numbers["samples"] > 1 and not numbers["beams"]
    temperature = cli.number("temperature", flags["temperature"] or str(float(drawn)), float)
    top_p, alpha = (cli.number(name, flags[name], float) for name in ("top_p", "alpha"))

    from taichu_jax.data.languages import UNKNOWN, known
    from taichu_jax.inference.decoding import Sampling
    from taichu_jax.inference.generate import Generator, Options
    from taichu_jax.inference.inputs import Given
    from taichu_jax.inference.page import check_free, new_folder, save
    from taichu_jax.training import runtime
    from taichu_jax.training.run import Run

    options = Options(
        samples=numbers["samples"],
        seed=numbers["seed"],
        sampling=Sampling(temperature, numbers["top_k"], top_p),
        beams=numbers["beams"],
        alpha=alpha,
        no_repeat=numbers["no_repeat"],
    )
    files = {k: pathlib.Path(flags[k]) if flags[k] else None for k in ("image", "audio")}
    language = known(flags["language"] or UNKNOWN, "--language")
    # An empty text is one that cannot be read, not one that was not given.
    text = flags["text"] if any(x.partition("=")[0] == "--text" for x in arguments) else None
    given = Given(text=text, language=language, **files)
    out = pathlib.Path(flags["out"])
    check_free(out)

    runtime.start_alone("launch/generate.py")
    opened = Run.open(flags["run"], step)
    generator = Generator(opened)
    generator.check(tuple(flags["to"].split(",")))
    texts, row = generator.words(given, options)
    what = f"{opened.config.name} after {opened.step:,} steps"
    with new_folder(out) as folder:
        save(folder, given, texts, run=what, notes=row.notes)
    for note in row.notes:
        print(f"note: {note}")
    for line in texts:
        print(f"{line.log_p:9.2f}  {line.text}")
    print(f"written: {out}")


if __name__ == "__main__":
    cli.main(run, __doc__)
