"""What is not installed is not missed until it is used, and then the error says what to install."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import perf_counter

import pytest

STORES = {
    "agent_framework": ("agent_framework", "agent-framework"),
    "chatkit": ("chatkit", "chatkit"),
    "langchain": ("langchain_core", "langchain"),
    "llama_index": ("llama_index", "llama-index"),
    "openai_agents": ("agents", "openai-agents"),
    "orchid": ("orchid_ai", "orchid"),
}
FORMATS = {
    "agent_framework": "agent_framework",
    "chatkit": "chatkit",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "openai_chat": "openai",
    "openai_responses": "openai",
    "pydantic_ai": "pydantic_ai",
}

WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("store", STORES)
def test_a_store_without_its_framework_says_what_to_install(store: str) -> None:
    package, extra = STORES[store]
    ran = run(f"{WITHOUT.format(package=package)}\nimport chat_history_adapters.stores.{store}")
    assert "MissingDependencyError" in ran.stderr
    assert f"pip install 'agent-chat-history[{extra}]'" in ran.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_imported_and_read_without_its_framework(name: str) -> None:
    ran = run(
        f"{WITHOUT.format(package=FORMATS[name])}\n"
        f"from chat_history_adapters.formats.{name} import FORMAT\n"
        f"assert not FORMAT.recognises(object())\nassert {FORMATS[name]!r} not in sys.modules"
    )
    assert ran.returncode == 0, ran.stderr


def test_the_adapters_cost_no_more_to_import_than_the_library() -> None:
    spent: dict[str, list[float]] = {"chat_history": [], "chat_history_adapters": []}
    for _ in range(7):
        for package, times in spent.items():
            begun = perf_counter()
            assert run(f"import {package}").returncode == 0
            times.append(perf_counter() - begun)
    assert median(spent["chat_history_adapters"]) <= 1.1 * median(spent["chat_history"])
