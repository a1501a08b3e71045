//! The proof that records are on stable storage, as the one thing that `append` gives back when it has not failed.
//! Holds: R1 by type. Outside the journal nobody can make a [`Durable`]; inside it takes a [`SyncedThrough`], which only
//! a sync that succeeded makes. Another engine of this module would make it from its own durable acknowledgement.

use super::segment::SyncedThrough;
use super::types::Appended;
use std::ops::Deref;

/// Every record of one call of [`super::Journal::append`] is on stable storage; for each, in order, whether it was there
/// already. It cannot be copied, so that it vouches for the records it was made for and no others.
///
/// It can be read like a slice:
/// ```
/// fn stored(proof: &hookbus::journal::Durable) -> usize {
///     proof.iter().filter(|how| **how == hookbus::journal::Appended::Stored).count()
/// }
/// ```
/// and neither made
/// ```compile_fail
/// fn forged(how: Vec<hookbus::journal::Appended>) -> hookbus::journal::Durable {
///     hookbus::journal::Durable(how)
/// }
/// ```
/// nor kept for another time:
/// ```compile_fail
/// fn again(proof: &hookbus::journal::Durable) -> hookbus::journal::Durable {
///     proof.clone()
/// }
/// ```
#[derive(PartialEq, Eq, Debug)]
pub struct Durable(Vec<Appended>);

impl Durable {
    /// `last` is the greatest sequence number that was given out when the records had been gathered.
    pub(super) fn covered(appended: Vec<Appended>, last: u64, proof: SyncedThrough) -> Durable {
        debug_assert!(proof.sequence() >= last, "R1: the sync covers the records");
        Durable(appended)
    }
}

impl Deref for Durable {
    type Target = [Appended];
    fn deref(&self) -> &[Appended] {
        &self.0
    }
}

/// The proof is spent.
impl From<Durable> for Vec<Appended> {
    fn from(durable: Durable) -> Vec<Appended> {
        durable.0
    }
}

impl IntoIterator for Durable {
    type Item = Appended;
    type IntoIter = std::vec::IntoIter<Appended>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
