"""A small SQuAD in the layout of rajpurkar/squad, in which every answer is a metal."""

import numpy as np
import pandas as pd

METALS = ("gold", "iron", "tin")
PLAIN = ("we", "walk", "to", "the", "old", "town", "and", "back", "again")


def question(number):
    """A row whose answer is the only metal of its context; two rows share a context."""
    generator = np.random.default_rng(number // 2)
    words = generator.choice(PLAIN, 8 + number // 2 % 7).tolist()
    place = int(generator.integers(len(words)))
    words.insert(place, metal := METALS[number // 2 % 3])
    answers = {"text": [metal], "answer_start": [len(" ".join([*words[:place], ""]))]}
    asked = f"which metal, {number}?"
    return {"question": asked, "context": " ".join(words), "answers": answers}


def write(folder, split, rows):
    """One parquet file in the layout of rajpurkar/squad."""
    file = folder / "plain_text" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)
    return file
