"""How numbers look: figures, tables, templates."""
