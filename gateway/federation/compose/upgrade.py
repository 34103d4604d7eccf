"""Federation 1 subgraphs, made into what they mean in Federation 2, as Apollo's upgrader does.

What only reading can tell is done there: fields of whole types are shareable, `extend` alone makes no extension.
"""

from gateway.federation.compose.model import Schema


def upgrade(schema: Schema) -> None:
    """Expects the field sets to have been checked."""
    for type_ in schema.composites():
        if type_.interface:
            type_.keys.clear()  # they say nothing there
            for field in type_.fields.values():
                field.external = False
        else:
            unused = [field.name for field in type_.fields.values() if field.external and not field.used]
            for name in unused:
                del type_.fields[name]
