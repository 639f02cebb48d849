"""The evaluation of tokenisers on a tiny stream, against NumPy, and how it is shown."""

import dataclasses

import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.evals.features import collect
from taichu_jax.evals.picture_tokens import PictureTokens, _blocks
from taichu_jax.evals.report.page import Media
from taichu_jax.evals.report.sections import SECTIONS
from taichu_jax.evals.tables import tables
from tests import case as cases
from tests.evals import tiny


def opened(path, name="vqvae"):
    """The tiny run with a tokeniser in place of its other networks."""
    modules, _, params, *_ = cases.built(name)
    run = tiny.run(path)
    experiment = dataclasses.replace(run.experiment, networks=modules)
    return dataclasses.replace(run, experiment=experiment, params=params)


@pytest.mark.parametrize("name", ["vqvae", "dvae"])
def test_numbers_are_those_of_the_pictures_and_their_codes(tmp_path, name):
    run = opened(tmp_path, name)
    result = PictureTokens(stream=tiny.Things(), examples=3).run(run, tmp_path / "tokens")

    def again(nets, batch):
        codes = nets("image_tokeniser", batch["image"], method="codes")
        return {"codes": codes, "drawn": nets("image_tokeniser", codes, method="decode")}

    fields, found = collect(run, tiny.Things(split="test"), again, ("image",))
    errors = [np.mean((a - b) ** 2) for a, b in zip(fields["image"], found["drawn"], strict=True)]
    model, blocks = result["rows"]
    assert result["pictures"] == 12 and result["split"] == "test"
    assert model["error"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert model["PSNR"] == pytest.approx(np.mean(-10 * np.log10(errors)), rel=1e-4)
    assert -1 <= model["SSIM"] <= 1
    codes = found["codes"].reshape(-1)
    shares = np.bincount(codes) / len(codes)
    entropy = -sum(p * np.log(p) for p in shares if p)
    assert result["codes"] == {
        "entries": 24,
        "per_picture": 16,
        "used": len(set(codes.tolist())),
        "perplexity": pytest.approx(np.exp(entropy)),
        "commonest_share": pytest.approx(shares.max()),
    }
    # Noise around one colour: blocks of mean colour are closer than an untrained tokeniser.
    assert blocks["error"] < model["error"] and blocks["PSNR"] > model["PSNR"]
    assert len(result["examples"]) == 3
    assert all((tmp_path / "tokens" / f).is_file() for e in result["examples"] for f in e.values())

    (table,) = tables("tokens", {"kind": "PictureTokens", "result": result})
    assert table.row_count == 2 and f"{result['codes']['used']} of 24" in str(table.title)
    html = SECTIONS["PictureTokens"][2]("tokens", result, Media(tmp_path))
    assert html.count("<img") == 6 and f"{model['PSNR']:.2f}" in html


def test_blocks_have_the_mean_colour():
    images = np.random.default_rng(0).random((2, 4, 6, 3)).astype(np.float32)
    flat = np.asarray(_blocks(images, 2))
    for b, y, x, c in np.ndindex(flat.shape):
        top, left = y // 2 * 2, x // 2 * 2
        assert flat[b, y, x, c] == pytest.approx(
            images[b, top : top + 2, left : left + 2, c].mean(), abs=1e-6
        )


def test_an_unknown_network_is_named(tmp_path):
    evaluation = PictureTokens(stream=tiny.Things(), tokeniser="image_tokenizer")
    with pytest.raises(UserError, match="did you mean 'image_tokeniser'"):
        evaluation.run(opened(tmp_path), tmp_path)
