"""Names for addresses and files."""

from typing import Annotated, TypedDict

from slugify import slugify


class Slug(TypedDict):
    """A name, and how many letters it has."""

    slug: str
    letters: int


class Names:
    """Turns titles into names."""

    def slug(
        self,
        title: Annotated[str, "any title"],
        words: Annotated[int, "at most so many", {"minimum": 1}] = 100,
    ) -> Slug:
        """A name in small Latin letters, with a dash between words."""
        name = "-".join(slugify(title).split("-")[:words])
        if not name:
            raise ValueError("the title has neither letters nor digits")
        return {"slug": name, "letters": len(name)}
