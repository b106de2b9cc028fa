//! node: see ARCHITECTURE.md.
