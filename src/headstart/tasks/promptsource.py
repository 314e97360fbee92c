"""Reads promptsource's template files as they are, without running anything they might hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.errors import DataError, TemplateError, did_you_mean
from headstart.tasks.template import Template

SIZE_LIMIT = 2 * 2**20
"""Bytes a template file may have."""

_TAGS = ("!Template", "!TemplateMetadata")


def read_promptsource(path: Path, name: str | None = None) -> dict[str, Template]:
    r"""Read the templates of one promptsource ``templates.yaml``, by their names.

    Args:
        path: The file.
        name: Read this template alone. Default None: all of them.

    Raises:
        TemplateError: The file is missing, over ``SIZE_LIMIT``, not promptsource's YAML, holds a
            broken template, one name twice, or not the one asked for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "templates.yaml")
        ...     entry = "{name: ask, jinja: '{{text}} ||| {{answer_choices[label]}}'}"
        ...     _ = path.write_text("templates:\n  some-id: !Template " + entry)
        ...     list(read_promptsource(path))
        ['ask']
    """
    templates: dict[str, Template] = {}
    for key, entry in _entries(path).items():
        template = _template(path, key, entry)
        if template.name in templates:
            raise TemplateError(f"{path}: the template name '{template.name}' comes twice")
        templates[template.name] = template
    if name is None:
        return templates
    if name not in templates:
        raise TemplateError(
            f"{path}: no template is called '{name}' (there are: {', '.join(templates)})"
            f"{did_you_mean(name, templates)}"
        )
    return {name: templates[name]}


def chosen_templates(path: Path, names: Sequence[str], told: str) -> dict[str, Template]:
    r"""Read the templates that were chosen from a file by their names, in that order; none: all.

    Args:
        path: The file.
        names: The templates' names.
        told: What errors call the file.

    Raises:
        DataError: A template that there is not, with a suggestion.
        TemplateError: As :func:`read_promptsource`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "templates.yaml")
        ...     entry = "{name: ask, jinja: '{{text}} ||| {{answer_choices[label]}}'}"
        ...     _ = path.write_text("templates:\n  some-id: !Template " + entry)
        ...     list(chosen_templates(path, [], "templates.yaml"))
        ['ask']
    """
    templates = read_promptsource(path)
    for name in names:
        if name not in templates:
            raise DataError(f"{told}: no template '{name}'{did_you_mean(name, templates)}")
    return {name: templates[name] for name in names or templates}


def _entries(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise TemplateError(f"{path}: has more than {SIZE_LIMIT:,} bytes, the most allowed")
        loader = _loader()(content)
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, TemplateError):
            raise
        message = " ".join(str(error).split())
        raise TemplateError(f"{path}: is not a YAML file of templates: {message}") from None
    entries = document.get("templates") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise TemplateError(f"{path}: expected a key 'templates' with promptsource templates in it")
    return entries


def _template(path: Path, key: object, entry: object) -> Template:
    if not isinstance(entry, dict):
        raise TemplateError(f"{path}: template '{key}' is not a mapping with 'name' and 'jinja'")
    name, text, choices = (entry.get(part) for part in ("name", "jinja", "answer_choices"))
    if not isinstance(name, str) or not isinstance(text, str):
        raise TemplateError(f"{path}: template '{key}' needs a 'name' and a 'jinja' text")
    if not isinstance(choices, str | None):
        raise TemplateError(f"{path}: template '{name}': answer_choices {choices!r} is not a text")
    try:
        return Template(text, choices, name)
    except TemplateError as error:
        raise TemplateError(f"{path}: {error}") from None


def _loader() -> Any:
    """A safe YAML loader that reads promptsource's two tags as plain mappings."""
    import yaml

    class Loader(yaml.SafeLoader):
        anchors_open = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            """Refuse an alias inside an anchored node: only so can aliases multiply."""
            event: object = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent):
                if self.anchors_open:
                    raise yaml.YAMLError("an alias inside an anchor is not allowed")
                return super().compose_node(parent, index)
            anchored = getattr(event, "anchor", None) is not None
            self.anchors_open += anchored
            node = super().compose_node(parent, index)
            self.anchors_open -= anchored
            return node

    for tag in _TAGS:
        Loader.add_constructor(tag, _as_mapping)
    return Loader


def _as_mapping(loader: Any, node: Any) -> Any:
    return loader.construct_mapping(node, deep=True)
