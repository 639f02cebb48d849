"""Writes, draws and speaks about a picture, a sound, words, or any of them together, with a trained run.

python launch/generate.py --run runs/NAME --image X.png --language fr --out x
python launch/generate.py --run runs/NAME --audio Y.wav --language fr --to image,text --samples 4 --out y

--run DIR            the run's folder
--image, --audio     files: PNG, JPEG, GIF, WEBP, BMP, SVG; WAV, FLAC, OGG, MP3
--text WORDS         words to read
--to KINDS           what is wanted, with commas: text (the default), image, audio, as far as the run can
--out DIR            a new folder: text.txt, one text a line; image_0.png, ..., as large as the run draws;
                     audio_0.wav, ..., 16 kHz, 16 bit; index.html with everything, to open in a browser
--language CODE      of the words and the voice, and to write and to speak in
--samples N          so many of each kind (1); texts are then drawn, or the best of a beam
--seed N             of the draws (0)
--temperature T      of all that is drawn; 1, the default, draws as learnt; 0 takes the likeliest, and is
                     the default for one text
--top_k K            draws from the K likeliest ids; by default all for text, 32 for image and audio
--top_p P            draws from the fewest ids that have probability P together (1)
--beams N            searches for texts with a beam so wide instead, with length penalty --alpha A (0.6)
--no_repeat N        no run of N ids comes twice in a text
--vocoder DIR        a run with a vocoder, to make sounds with; Griffin-Lim by default
--step N             the checkpoint of this step; the newest by default
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {
    "run": "", "image": "", "audio": "", "text": "", "to": "text", "out": "", "language": "",
    "samples": "1", "seed": "0", "temperature": "", "top_k": "", "top_p": "1", "beams": "0",
    "alpha": "0.6", "no_repeat": "0", "vocoder": "", "step": "",
}  # fmt: skip


def run(arguments: list[str]) -> None:
    """Parses the arguments, writes the folder and prints what was made."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS)
    for name, what in (("run", "the folder of a run"), ("out", "a folder for the results")):
        if not flags[name]:
            raise UserError(f"--{name} DIR is needed: {what}")
    numbers = {k: int(cli.number(k, flags[k])) for k in ("samples", "seed", "beams", "no_repeat")}
    step, top_k = (int(cli.number(k, flags[k])) if flags[k] else None for k in ("step", "top_k"))
    temperature = (
        cli.number("temperature", flags["temperature"], float) if flags["temperature"] else None
    )
    top_p, alpha = (cli.number(name, flags[name], float) for name in ("top_p", "alpha"))

    from taichu_jax.data.languages import UNKNOWN, known
    from taichu_jax.inference.generate import Generator, Options
    from taichu_jax.inference.inputs import Given
    from taichu_jax.inference.page import check_free, new_folder, save
    from taichu_jax.inference.vocoder import NeuralVocoder
    from taichu_jax.training import runtime
    from taichu_jax.training.run import Run

    options = Options(
        kinds=tuple(dict.fromkeys(flags["to"].split(","))),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        alpha=alpha,
        **numbers,
    )
    if flags["vocoder"] and "audio" not in options.kinds:
        raise UserError(f"--vocoder {flags['vocoder']}: makes sound, which --to does not name")
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
    generator.check(options.kinds)
    vocoder = NeuralVocoder.open(flags["vocoder"]) if flags["vocoder"] else None
    made = generator.make(given, options, vocoder)
    what = f"{opened.config.name} after {opened.step:,} steps"
    with new_folder(out) as folder:
        save(folder, given, made, run=what)
    for note in made.notes:
        print(f"note: {note}")
    for line in made.texts:
        print(f"{line.log_p:9.2f}  {line.text}")
    print(f"written: {out}")


if __name__ == "__main__":
    cli.main(run, __doc__)
