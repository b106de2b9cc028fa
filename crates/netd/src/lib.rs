//! netd: see ARCHITECTURE.md.
