"""Configs: written with `spec`, changed on the command line, built, saved and compared."""

import dataclasses
import json
import re
import sys

import pytest
from ml_collections import ConfigDict

from taichu_jax.config import (
    build,
    choices,
    completed,
    differences,
    from_json,
    load,
    override,
    parse_arguments,
    spec,
    to_json,
)
from taichu_jax.errors import UserError
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.base import Teacher
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.ops.schedules import Cosine
from taichu_jax.training.optim import AdamW


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    size: int
    rate: float = 0.5
    name: str = "a"
    sizes: tuple = (1, 2)
    flag: bool = True
    maybe: float | None = None
    teacher: Teacher | None = Teacher(nets=("net",))
    own: dict = dataclasses.field(default_factory=lambda: {"k": 1})

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"size={self.size} is negative")


def config():
    return ConfigDict({"name": "run", "part": spec(Part, size=3), "steps": 10})


FILE = """
from ml_collections import ConfigDict
from taichu_jax.config import spec
from taichu_jax.ops.schedules import Cosine

def get_config({argument}):
    return ConfigDict(dict(name={name}, rate=spec(Cosine, start=0.5, end=1.0, steps=8)))
"""


def write(path, argument="", name="'plain'"):
    path.write_text(FILE.format(argument=argument, name=name))
    return str(path)


# ------------------------------------------------------------------------------- spec and build


def test_a_spec_is_complete_and_builds_the_object():
    written = spec(Part, size=3)
    assert written.rate == 0.5 and written.teacher.nets == ("net",) and written.own.k == 1
    assert build(written) == Part(size=3)
    changed = spec(Part, size=4, sizes=[5, 6], maybe=0.1, teacher=None)
    assert build(changed) == Part(size=4, sizes=(5, 6), maybe=0.1, teacher=None)


def test_specs_inside_specs_tuples_and_dictionaries():
    written = spec(
        MaskedLanguageModel,
        source="s",
        vocab_size=9,
        weight=Cosine(start=0.0, end=1.0, steps=5),
    )
    objective = build(written)
    assert objective.weight == Cosine(start=0.0, end=1.0, steps=5)
    both = build(ConfigDict({"list": (spec(Part, size=1), 2), "tree": {"a": spec(Part, size=2)}}))
    assert both == {"list": (Part(size=1), 2), "tree": {"a": Part(size=2)}}


def test_modules_are_built_without_flax_own_fields():
    written = spec(TextEncoder, vocab_size=9)
    assert not {"parent", "name"} & set(written)
    assert build(written) == TextEncoder(vocab_size=9)


def test_wrong_and_missing_keywords_are_refused_at_once():
    with pytest.raises(
        UserError, match=r"Part\(siz=...\): no such field; did you mean 'size'\? valid: flag, maybe"
    ):
        spec(Part, siz=3)
    with pytest.raises(UserError, match=r"Part\(...\): needs size"):
        spec(Part)
    with pytest.raises(UserError, match="is not a dataclass"):
        spec(int)


def test_errors_of_a_constructor_name_the_key():
    with pytest.raises(UserError, match=r"config.part: size=-1 is negative"):
        build(ConfigDict({"part": spec(Part, size=-1)}))
    written = spec(Part, size=1).unlock()
    written.extra = 1
    with pytest.raises(UserError, match=r"config: .*extra"):
        build(written)


@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "taichu_jax.config:nothing",
        "taichu_jax.none:X",
        "taichu_jax.training.files:write_whole",  # a function
        "taichu_jax.training.files:Path",  # a class, but of another module
        "taichu_jax.evals.evaluate:shutil",  # a module
        "taichu_jax.training.optim:AdamW.__init__",
        "taichu_jax.training.run:Experiment",  # where it is imported, not where it is defined
        "taichu_jax.errors:UserError",  # not a dataclass
        "taichu_config:X",  # no config file was named to this program
        "taichu_config_of_mine:X",
        "configs.none:X",
        "tests.../tmp/x:X",
        "taichu_jax:config",
        ":",
        "",
    ],
)
def test_only_the_projects_own_classes_can_be_built(kind):
    sys.modules.pop("taichu_config", None)
    with pytest.raises(UserError, match=re.escape(f"kind={kind!r}")):
        build(ConfigDict({"kind": kind}))


def test_a_module_that_is_not_the_projects_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("taichu_config", "taichu_jax_evil"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    sys.modules.pop("taichu_config", None)
    for kind in ("taichu_config:X", "taichu_jax_evil:X", "configs.evil:X", "taichu_jax_evil.a:X"):
        with pytest.raises(UserError, match="only classes of taichu_jax"):
            build(ConfigDict({"kind": kind}))
        with pytest.raises(UserError, match="only classes of taichu_jax"):
            completed(ConfigDict({"part": {"kind": kind}}))
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------- override


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("name", "12", "12"),
        ("steps", "20", 20),
        ("part.rate", "1", 1.0),
        ("part.rate", "1e-3", 1e-3),
        ("part.sizes", "[3, 4]", (3, 4)),
        ("part.sizes", "(3,)", (3,)),
        ("part.flag", "false", False),
        ("part.flag", "True", True),
        ("part.maybe", "0.25", 0.25),
        ("part.rate", "none", None),
        ("part.teacher.nets", "('a', 'b')", ("a", "b")),
        ("part.teacher.decay", "0.9", 0.9),
        ("part.own.k", "7", 7),
    ],
)
def test_values_take_the_type_of_the_present_one(key, text, value):
    node = override(config(), {key: text})
    for part in key.split("."):
        node = node[part]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "key, text, message",
    [
        (
            "stps",
            "1",
            r"--config.stps: no such key; did you mean 'steps'\? valid: name, part, steps",
        ),
        ("part.siz", "1", r"--config.part.siz: no such key; did you mean 'size'\?"),
        ("part.kind", "x:y", r"--config.part.kind: no such key"),
        ("prt.size", "1", r"--config.prt: no such key; did you mean 'part'\?"),
        ("steps.x", "1", r"--config.steps.x: config.steps is a value, it has no keys"),
        ("part", "1", r"--config.part=1: is a section; its keys: "),
        ("steps", "1.5", r"--config.steps=1.5: must be int, like the present value 10"),
        ("steps", "many", r"--config.steps=many: must be int"),
        ("part.flag", "1", r"--config.part.flag=1: must be bool"),
        ("part.size", "True", r"must be int"),
        ("part.sizes", "3", r"must be tuple"),
    ],
)
def test_overrides_that_make_no_sense(key, text, message):
    with pytest.raises(UserError, match=message):
        override(config(), {key: text})


# ----------------------------------------------------------------------------- files, arguments


def test_load_with_and_without_an_argument(tmp_path):
    plain = write(tmp_path / "plain.py")
    assert load(plain).name == "plain"
    assert build(load(plain))["rate"] == Cosine(start=0.5, end=1.0, steps=8)
    taking = write(tmp_path / "taking.py", "name='small'", "name")
    assert load(taking).name == "small" and load(f"{taking}:large").name == "large"
    with pytest.raises(UserError, match="takes no argument"):
        load(f"{plain}:large")


def test_files_that_are_no_configs(tmp_path):
    write(tmp_path / "mae_stamps.py")
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "mae_stmps.py"))
    assert "no such file; did you mean" in str(caught.value)
    assert str(tmp_path / "mae_stamps.py") in str(caught.value)
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(UserError, match=r"defines no get_config\(\)"):
        load(str(empty))
    with pytest.raises(UserError, match="no such file"):
        load("")


def test_arguments(tmp_path):
    path = write(tmp_path / "plain.py")
    flags = {"workdir": "/tmp/x", "data_dir": ""}
    made, values = parse_arguments(
        ["--workdir", "here", f"--config={path}", "--config.rate.steps", "9", "--config.name=a=b"],
        flags,
    )
    assert made.rate.steps == 9 and made.name == "a=b"
    assert values == {"workdir": "here", "data_dir": ""} and flags["workdir"] == "/tmp/x"


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "--config FILE is needed"),
        (["file.py"], "file.py: not a flag; valid: --config, --workdir"),
        (["--workdr", "x"], r"--workdr: no such flag; did you mean '--workdir'\?"),
        (["--workdir"], "--workdir: needs a value"),
        (["--config", "none.py"], "--config none.py: no such file"),
    ],
)
def test_arguments_that_make_no_sense(argv, message):
    with pytest.raises(UserError, match=message):
        parse_arguments(argv, {"workdir": ""})


# ------------------------------------------------------------------------- saving and comparing


def test_json_round_trip():
    original = ConfigDict(
        {"part": spec(Part, size=3), "adam": spec(AdamW, learning_rate=0.1), "none": None}
    )
    text = to_json(original)
    again = from_json(text)
    assert to_json(again) == text and again.part.sizes == (1, 2)
    assert build(again) == build(original)
    assert build(again)["adam"].rules == AdamW(learning_rate=0.1).rules


def test_differences_lists_the_leaves_that_differ():
    old, new = config(), config()
    assert differences(old, new) == []
    new.part.rate, new.part.sizes = 0.25, (1, 3)
    new["more"] = True
    del new["name"]
    assert differences(old, new) == [
        "more: (absent) -> True",
        "name: run -> (absent)",
        "part.rate: 0.5 -> 0.25",
        "part.sizes: [1, 2] -> [1, 3]",
    ]


def test_nearest_names_come_first():
    assert choices("wdth", ["depth", "width"]) == "did you mean 'width'? valid: depth, width"
    assert choices("zzz", ["depth", "width"]) == "valid: depth, width"
    assert choices("x", []) == "valid: (none)"


def test_a_saved_config_gains_the_fields_that_came_later():
    config = ConfigDict(
        {
            "networks": {"text": spec(TextEncoder, vocab_size=9, width=8)},
            "all": (spec(AdamW, learning_rate=0.1),),
        }
    )
    saved = json.loads(to_json(config))
    del saved["networks"]["text"]["dropout"], saved["all"][0]["clip"]
    old = from_json(json.dumps(saved))
    assert differences(old, config) != []
    assert differences(completed(old), config) == []
    assert completed(old).networks.text.width == 8
