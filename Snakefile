# The batch: one job for each notebook x task x seed, one page for each notebook, one book.
#
#   snakemake --cores all                              # profile quick, the default book
#   snakemake --cores all --config profile=smoke       # the same, small: what the tests build
#   snakemake --executor slurm --jobs 20 --config profile=paper
#
# A job is re-run exactly when its notebook, the library, its profile or the pins change. Records
# and finished rounds lie in _build/<profile>/records, outside of what Snakemake deletes, so a
# re-run or an interrupted batch trains only what is missing.
import sys
from pathlib import Path

from adapter_pruning.parameters import load_profile

PROFILE = config.get("profile", "quick")
BATCH = load_profile(PROFILE)
OUT = f"_build/{PROFILE}"
HTML = "_build/html" if PROFILE == "quick" else f"{OUT}/html"
NOTEBOOKS = sorted(BATCH.notebooks)
FIRST = "01_adapter_tuning"  # makes the searches and the baselines that the others use
PAGE_TASK = BATCH.tasks[0]
EXTRAS = sorted(file.stem for file in Path("book").glob("*.ipynb"))
DECIDES = [
    *sorted(map(str, Path("lib/adapter_pruning").glob("*.py"))),
    "lib/adapter_pruning/offline.txt",
    "constraints.txt",
    f"profiles/{PROFILE}.yaml",
]
RECORDED = sorted(map(str, Path("book/results").glob("*.jsonl")))
PROSE = sorted(
    str(file) for file in Path("book").rglob("*") if file.is_file() and file.suffix != ".ipynb"
)
RUN = f"{sys.executable} -m adapter_pruning.runner"
# A kernel's chatter goes to a file, which is shown when a job fails.
LOGGED = " > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}"
JB = Path(sys.executable).with_name("jupyter-book")


wildcard_constraints:
    notebook="[^/]+",
    task=".+",
    seed=r"\d+",


rule all:
    input:
        f"{HTML}/index.html",


rule batch:
    """Every task's page, not only those that the book shows."""
    input:
        expand(f"{OUT}/pages/{{notebook}}/{{task}}.ipynb", notebook=NOTEBOOKS, task=BATCH.tasks),


def searches(wildcards):
    """The job that makes them: its first seed's, so that the others' keep the cores busy."""
    seeds = [] if wildcards.notebook == FIRST else BATCH.seeds[:1]
    return expand(f"{OUT}/seeds/{FIRST}/{wildcards.task}/{{seed}}.ipynb", seed=seeds)


rule seed:
    input:
        searches,
        notebook="notebooks/{notebook}.ipynb",
        decides=DECIDES,
    output:
        f"{OUT}/seeds/{{notebook}}/{{task}}/{{seed}}.ipynb",
    log:
        f"{OUT}/logs/{{notebook}}/{{task}}/{{seed}}.log",
    threads: 1
    shell:
        f"{RUN} {{input.notebook}} {{output}} --profile {PROFILE}"
        f" --set output={OUT} --set task={{wildcards.task}} --set seeds=[{{wildcards.seed}}]"
        + LOGGED


use rule seed as longest_seed with:
    # Answers and summaries take longest, so they begin first: else one core works on alone.
    wildcard_constraints:
        notebook="07_adapter_variants",
    priority: 1


ruleorder: longest_seed > seed


rule page:
    """The notebook over all seeds; its models come from the records of the seeds' jobs."""
    input:
        seeds=expand(f"{OUT}/seeds/{{{{notebook}}}}/{{{{task}}}}/{{seed}}.ipynb", seed=BATCH.seeds),
        baselines=expand(f"{OUT}/seeds/{FIRST}/{{{{task}}}}/{{seed}}.ipynb", seed=BATCH.seeds),
        notebook="notebooks/{notebook}.ipynb",
        decides=DECIDES,
        recorded=RECORDED,
    output:
        f"{OUT}/pages/{{notebook}}/{{task}}.ipynb",
    log:
        f"{OUT}/logs/{{notebook}}/{{task}}/page.log",
    params:
        seeds=str(BATCH.seeds).replace(" ", ""),
    threads: 1
    shell:
        f"{RUN} {{input.notebook}} {{output}} --profile {PROFILE}"
        f" --set output={OUT} --set task={{wildcards.task}} --set seeds={{params.seeds}}"
        + LOGGED


rule extra:
    """A page of the book that runs: on its own, or over the records of all notebooks."""
    input:
        notebook="book/{page}.ipynb",
        pages=rules.batch.input,
        recorded=RECORDED,
    output:
        f"{OUT}/extras/{{page}}.ipynb",
    log:
        f"{OUT}/logs/{{page}}.log",
    threads: 1
    shell:
        f"{RUN} {{input.notebook}} {{output}} --set output={OUT} --set profile={PROFILE}"
        + LOGGED


rule book:
    input:
        pages=expand(f"{OUT}/pages/{{notebook}}/{PAGE_TASK}.ipynb", notebook=NOTEBOOKS),
        extras=expand(f"{OUT}/extras/{{page}}.ipynb", page=EXTRAS),
        prose=PROSE,
        toc="_toc.yml",
        config="_config.yml",
    output:
        f"{HTML}/index.html",
    log:
        f"{OUT}/jupyter-book.log",
    params:
        site=f"{OUT}/site",
        html=HTML,
    shell:
        """
        rm -rf {params.site} && mkdir -p {params.site}/notebooks
        cp -r book {input.toc} {input.config} {params.site}/
        cp {input.extras} {params.site}/book/
        for page in {input.pages}; do
            cp $page {params.site}/notebooks/$(basename $(dirname $page)).ipynb
        done
        {JB} build {params.site} -W -n --keep-going > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}
        rm -rf {params.html} && cp -r {params.site}/_build/html {params.html}
        """
