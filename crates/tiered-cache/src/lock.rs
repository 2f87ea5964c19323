//! Locks that nobody panics under.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole after every step anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
