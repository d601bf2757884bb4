"""Why an item was found: every part of its score, as JSON members."""

from dataclasses import asdict
from typing import Any

import numpy as np

from app.search.candidates import Candidates
from app.search.gathering import Asked
from app.search.prepared import RankedSearch
from app.search.ranking import Parts, Ranking


def explain_item(
    ranking: Ranking, parts: Parts, candidates: Candidates, asked: Asked, place: int
) -> dict[str, Any]:
    """Return how the score of the item at a place of the pool came about."""
    of = ranking.relevance
    item = candidates.pool.items[place]
    return {
        "relevance": _number(of.score[place]),
        "similarity": _number(of.similarity[place]),
        "lexical": _number(of.lexical[place]) if asked.words else None,
        "recency": _number(parts.recency[place]),
        "importance": _number(parts.importance[place]),
        "strength": _number(parts.strength[place]),
        "pinned": bool(item["pinned"]),
        "words": _words(ranking, candidates, asked, place),
        "found_by": _found_by(ranking, candidates, place),
    }


def explain_search(search: RankedSearch, candidates: Candidates) -> dict[str, Any]:
    """Return how a scope was searched."""
    statistics = candidates.statistics
    return {
        "mode": search.mode,
        "scope": candidates.way,
        "passages": round(statistics.passages),
        "words": [
            {"word": word.word, "rarity": round(float(rarity), 6), "passages": round(passages)}
            for word, rarity, passages in zip(
                search.words, statistics.rarity, statistics.passages_with, strict=True
            )
        ],
        "weights": asdict(search.weights),
        "half_life_days": asdict(search.half_lives),
    }


def _words(
    ranking: Ranking, candidates: Candidates, asked: Asked, place: int
) -> list[dict[str, Any]]:
    own, nearby = ranking.relevance.words[:, place], ranking.relevance.nearby[:, place]
    rarity = candidates.statistics.rarity
    return [
        {
            "word": word.word,
            "weight": _number(own[n]),
            "nearby": _number(nearby[n]),
            "rarity": _number(rarity[n]),
        }
        for n, word in enumerate(asked.words)
        if own[n] or nearby[n]
    ]


def _found_by(ranking: Ranking, candidates: Candidates, place: int) -> list[str]:
    item_id = int(candidates.pool.items["id"][place])
    if candidates.way == "index":
        lists = {
            "vector": item_id in candidates.nearest,
            "text": item_id in candidates.worded,
        }
    else:
        lists = {
            "vector": not np.isnan(ranking.relevance.similarity[place]),
            "text": bool(ranking.relevance.words[:, place].any()),
        }
    lists["context"] = bool(ranking.relevance.nearby[:, place].any())
    return [name for name, was_there in lists.items() if was_there]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
