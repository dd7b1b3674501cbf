"""Make a recorded run of the book from the records of a batch.

python book/record.py quick _build/quick/records      # writes book/results/quick.jsonl
"""

import argparse
import json
from pathlib import Path

from adapter_pruning import files, records

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Write the newest record of every model of the batch, one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="what the book calls the run")
    parser.add_argument(
        "records", type=Path, help="the batch's records folder"
    )
    options = parser.parse_args()
    found = records.RecordStore(options.records).all()
    newest = set(records.latest(records.frame(found)).key)
    lines = [
        json.dumps(r, sort_keys=True) for r in found if r["key"] in newest
    ]
    file = RESULTS / f"{options.name}.jsonl"
    files.write_bytes(file, "".join(f"{line}\n" for line in lines).encode())
    print(f"{len(lines)} models in {file}")


if __name__ == "__main__":
    main()
