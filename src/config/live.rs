//! A value that a reload replaces while others use it.
//! Holds: whoever asks gets the value before or the one after, whole, and waits for nobody.

use std::sync::{PoisonError, RwLock};

/// See the module; cheap to read where `T` is cheap to clone (an `Arc`).
#[derive(Debug)]
pub struct Live<T>(RwLock<T>);

impl<T: Clone> Live<T> {
    /// Begins with this one.
    #[must_use]
    pub fn new(value: T) -> Self {
        Live(RwLock::new(value))
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> T {
        // Nobody panics while holding the lock.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
