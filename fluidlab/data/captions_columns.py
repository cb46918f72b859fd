"""Where a stranger's data set keeps its pictures and captions: found by type and name, or told."""

from dataclasses import dataclass

IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")
CAPTION_NAMES = ("caption", "captions", "text", "txt", "sentences", "prompt", "description", "json.caption",
                 "json.captions", "json.text")
ID_NAMES = ("__key__", "id", "image_id", "cocoid", "filename", "file_name", "key")
INNER_NAMES = ("raw", "caption", "text", "sentence")     # where a caption hides inside a structure
NOTHING = object()                                       # what `look` answers where there is nothing


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a row keeps its picture, its captions and its name; "json.caption" is a key inside a column."""

    image: str
    caption: str
    id: str | None = None


def choose_columns(row: dict, image: str | None = None, caption: str | None = None, id: str | None = None) -> Columns:
    """The columns of a data set by one of its rows; those that are not given are found by type and name.

    Raises:
        ValueError: a given column does not exist, none or several could be meant, or pictures are only addresses.
    """
    there = f"the columns are {', '.join(row)}"
    for name in filter(None, (image, caption, id)):
        if look(row, name) is NOTHING:
            raise ValueError(f"There is no column {name!r}; {there}.")
    if image is None:
        found = [name for name, value in row.items() if _is_picture(value)]
        found = found if len(found) <= 1 else [name for name in IMAGE_NAMES if name in found][:1] or found
        if len(found) != 1:
            raise ValueError(f"{len(found)} columns hold pictures{': ' if found else ''}{', '.join(found)}; name one "
                             f"with image_column ({there}).")
        image = found[0]
    value = look(row, image)
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"Column {image!r} holds addresses ({value[:60]}) and no pictures: fetch these first, for "
                         "example with img2dataset into webdataset shards, and give that folder.")
    if caption is None:
        named = [name for name in CAPTION_NAMES if captions_of(look(row, name))]
        typed = [name for name, value in row.items() if captions_of(value) and name != image and name not in ID_NAMES
                 and not name.startswith("__")]
        found = named[:1] or typed
        if len(found) != 1:
            raise ValueError(f"{len(found)} columns could hold captions{': ' if found else ''}{', '.join(found)}; name "
                             f"one with caption_column ({there}).")
        caption = found[0]
    return Columns(image=image, caption=caption, id=id or next((name for name in ID_NAMES if name in row), None))


def look(row: dict, name: str):
    """A value of a row by column, or by "column.key"; `NOTHING` if there is none."""
    if name in row:
        return row[name]
    for key in name.split("."):
        if not isinstance(row, dict) or key not in row:
            return NOTHING
        row = row[key]
    return row


def _is_picture(value) -> bool:
    structure = isinstance(value, dict) and set(value) == {"bytes", "path"}
    return structure or isinstance(value, bytes) or (
        isinstance(value, str) and value.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def captions_of(value) -> list[str]:
    """All captions in a value: a text, a list of texts, or structures with one of INNER_NAMES; without empty ones."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return [" ".join(value.split())] if value.strip() else []
    if isinstance(value, dict):
        return next((captions_of(value[name]) for name in INNER_NAMES if name in value), [])
    if isinstance(value, list | tuple):
        return [caption for part in value for caption in captions_of(part)]
    return []
