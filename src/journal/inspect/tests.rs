//! What is said of a journal that somebody has harmed.
