"""Examples in the API's document. Each works as it stands: a test sends every one."""

from typing import Any

_MLP = {"name": "mlp", "params": {"hidden": [32]}}
_DIGITS = {"name": "digits"}

JOBS: dict[str, dict[str, Any]] = {
    "train": {
        "kind": "train",
        "name": "first try",
        "tags": {"purpose": "example"},
        "model": _MLP,
        "dataset": _DIGITS,
        "optimizer": {"name": "adam", "params": {"lr": 0.003}},
        "budget": {"epochs": 3},
        "batch_size": 64,
        "seed": 0,
        "target": {"metric": "train_loss", "value": 0.5},
    },
    "sweep": {
        "kind": "sweep",
        "model": _MLP,
        "dataset": _DIGITS,
        "optimizers": [
            {"name": "adam", "grid": {"lr": [0.001, 0.003]}},
            {"name": "hf_adam"},
        ],
        "seeds": [0, 1],
        "budget": {"epochs": 2},
        "batch_size": 128,
    },
    "meta_train": {
        "kind": "meta_train",
        "optimizer": "mlhf",
        "tasks": [
            {"model": _MLP, "dataset": {"name": "digits", "params": {"split": "meta"}}},
        ],
        "iterations": 2,
    },
    "ablation": {
        "kind": "ablation",
        "tasks": [
            {"model": _MLP, "dataset": _DIGITS, "budget": {"steps": 4}, "batch_size": 64},
        ],
        "meta_checkpoint": "none",
    },
}

# By operation: what its body may be. Where an id is needed, it is of nothing that there is.
BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "create_job": JOBS,
    "clone_job": {"another seed": {"changes": {"seed": 1}}},
    "change_job": {"tags and notes": {"tags": {"use": "paper"}, "notes": "**Converges.**"}},
    "change_run": {"tags and notes": {"tags": {"best": "yes"}, "notes": "The one to keep."}},
    "change_many": {
        "by filter": {
            "filter": "status = failed",
            "changes": {"tags": {"look": "again"}},
            "dry_run": True,
        }
    },
    "create_project": {"a project": {"name": "vision", "description": "All about images."}},
    "change_project": {"rename": {"name": "sight"}},
    "delete_many": {
        "jobs": {"filter": {"status": ["failed"]}, "dry_run": True},
        "runs": {"runs": "test_loss.best > 3", "dry_run": True},
    },
    "create_logged_run": {
        "a loop of my own": {
            "name": "my loop",
            "project": "mine",
            "optimizer": "sgd",
            "model": "my-net",
            "dataset": "digits",
            "config": {"lr": 0.1},
            "total_steps": 100,
        }
    },
    "log_points": {
        "the first batch": {
            "sequence": 1,
            "points": [
                {"step": 1, "samples": 64, "wall_seconds": 0.5, "values": {"train_loss": 2.3}},
                {"step": 2, "samples": 128, "wall_seconds": 1.0, "values": {"train_loss": 1.9}},
            ],
        }
    },
    "finish_logged_run": {"succeeded": {"status": "succeeded"}},
    "predict": {
        "an image of digits": {
            "rows": [
                [
                    [0, 0, 5, 13, 9, 1, 0, 0],
                    [0, 0, 13, 15, 10, 15, 5, 0],
                    [0, 3, 15, 2, 0, 11, 8, 0],
                    [0, 4, 12, 0, 0, 8, 8, 0],
                    [0, 5, 8, 0, 0, 9, 8, 0],
                    [0, 4, 11, 0, 1, 12, 7, 0],
                    [0, 2, 14, 5, 10, 12, 0, 0],
                    [0, 0, 6, 13, 10, 0, 0, 0],
                ]
            ]
        }
    },
    "export": {"ONNX": {"format": "onnx"}, "torch.export": {"format": "pt2"}},
    "set_alias": {"the shipped one": {"meta_checkpoint_id": "mc_shipped_mlhf"}},
    "create_key": {"a member": {"name": "a member of the team", "scopes": ["write"]}},
    "rotate_key": {"an hour for both": {"overlap_seconds": 3600}},
    "create_webhook": {
        "ends of jobs, and a bad loss": {
            "url": "https://example.org/mlhf",
            "events": ["job.succeeded", "job.failed"],
            "metrics": [{"metric": "train_loss", "when": "not_finite"}],
        }
    },
    "change_webhook": {"no more": {"enabled": False}},
    "create_rule": {
        "old failures": {
            "name": "old failures",
            "rule": {"status": ["failed"], "older_than_days": 30},
            "enabled": False,
        }
    },
    "preview_rule": {"old failures": {"status": ["failed"], "older_than_days": 30}},
    "change_rule": {"no more": {"enabled": False}},
}

# By field of a form: what may stand in it. Files are for the user to choose.
FORMS: dict[str, str] = {"name": "flowers", "progress_id": "upload-of-flowers-1"}

PROBLEMS: dict[str, dict[str, Any]] = {
    "invalid": {
        "type": "/problems/invalid",
        "title": "The request is not valid",
        "status": 422,
        "detail": "/budget/epoch: unknown field 'epoch'; did you mean 'epochs'? known: epochs, "
        "steps, samples, wall_seconds",
        "errors": [
            {
                "pointer": "/budget/epoch",
                "detail": "unknown field 'epoch'; did you mean 'epochs'? known: epochs, steps, "
                "samples, wall_seconds",
            }
        ],
    },
    "bad-request": {
        "type": "/problems/bad-request",
        "title": "Bad request",
        "status": 400,
        "detail": "The body is not valid JSON.",
    },
    "not-found": {
        "type": "/problems/not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no job of this id.",
    },
    "conflict": {
        "type": "/problems/conflict",
        "title": "Conflict with the present state",
        "status": 409,
        "detail": "The job has already succeeded: it cannot be cancelled.",
    },
    "too-large": {
        "type": "/problems/too-large",
        "title": "Content too large",
        "status": 413,
        "detail": "The body is larger than the 1,000,000 bytes accepted here.",
    },
    "range-not-satisfiable": {
        "type": "/problems/range-not-satisfiable",
        "title": "Range not satisfiable",
        "status": 416,
        "detail": "The file has 4,096 bytes.",
    },
    "unavailable": {
        "type": "/problems/unavailable",
        "title": "Temporarily unavailable",
        "status": 503,
        "detail": "The database does not answer. Try again.",
    },
    "insufficient-storage": {
        "type": "/problems/insufficient-storage",
        "title": "No room left",
        "status": 507,
        "detail": "The disk of the database is full. Make room on it and try again.",
    },
}


def named(examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Examples as OpenAPI has them."""
    return {name: {"summary": name, "value": value} for name, value in examples.items()}
