"""What the tests of question answering share: a small task, and a model for it."""

import pytest
from small_squad import question, write

import adapter_pruning as ap


@pytest.fixture(scope="session")
def folder_of_rows(tmp_path_factory):
    """A folder with a tiny squad: 60 questions about 30 contexts, and 20 about 10 others."""
    folder = tmp_path_factory.mktemp("squad")
    write(folder, "train", [question(i) for i in range(60)])
    write(folder, "validation", [question(i) for i in range(100, 120)])
    return folder


@pytest.fixture(scope="session")
def task(folder_of_rows):
    return ap.load_task("squad", str(folder_of_rows))


@pytest.fixture(scope="session")
def one_row(tmp_path_factory):
    """one_row(**changes): a task whose only test row is the first one of all, so changed."""
    folder = tmp_path_factory.mktemp("one")

    def loaded(**changes):
        write(folder, "train", [question(i) for i in range(4)])
        write(folder, "validation", [question(0) | changes])
        return ap.load_task("squad", str(folder), hold_out=0.5)

    return loaded


@pytest.fixture
def reader(tiny_bert, task):
    """A tiny BERT with a head for every token."""
    return tiny_bert(task).eval()
