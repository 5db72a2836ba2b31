"""Changed bundles, with and without fitting digests."""

import json

from antpitta.files.bundle_schema import content_digest, file_records


def change(folder, **values):
    """Change keys of bundle.json; a function takes the old value."""
    content = json.loads((folder / "bundle.json").read_text())
    for key, value in values.items():
        content[key] = value(content[key]) if callable(value) else value
    (folder / "bundle.json").write_text(json.dumps(content))


def seal(folder):
    """Give a bundle the digests of what it holds now."""
    content = json.loads((folder / "bundle.json").read_text())
    names = list(content["files"])
    if isinstance(content["members"], list):
        for name in content["members"]:
            seal(folder / "members" / name)
    content["files"] = file_records(folder, names)
    parts = [content["files"][name]["sha256"] for name in names if name.endswith("tensors")]
    for name in content["members"]:
        member = json.loads((folder / "members" / name / "bundle.json").read_text())
        parts.append(member["digest"])
    content["digest"] = content_digest(content, parts)
    (folder / "bundle.json").write_text(json.dumps(content))
