//! reconcile (pure): see ARCHITECTURE.md for its place.
#![forbid(unsafe_code)]
