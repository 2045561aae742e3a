//! A member as the tests of membership, ring and view need one: valid, of weight 1, holding nothing. Tests say only what matters to them:
//! `Member { weight: 2, ..member("a") }`. Not part of any build but those for tests, which exercise it.

use super::membership::Member;
use crate::base::id::NodeId;

/// The id of that name.
pub(crate) fn id(name: &str) -> NodeId {
    name.parse().expect("tests use plain names")
}

/// The member of that name, in its tenth life, at an address of its own.
pub(crate) fn member(name: &str) -> Member {
    Member { incarnation: 10, ..Member::new(id(name), format!("{name}:5000")) }
}
