//! A member as the tests of membership, ring and view need one: valid, of weight 1, holding nothing. Tests say only what matters to them:
//! `Member { weight: 2, ..member("a") }`. Not part of any build but those for tests, which exercise it.

use super::membership::{Held, Member, MemberState};
use crate::base::id::NodeId;

/// The id of that name.
pub(crate) fn id(name: &str) -> NodeId {
    name.parse().expect("tests use plain names")
}

/// The member of that name, in its tenth life.
pub(crate) fn member(name: &str) -> Member {
    Member {
        id: id(name),
        revision: 1,
        state: MemberState::Joined,
        address: "10.0.0.1:5000".into(),
        admin: None,
        weight: 1,
        zone: None,
        vnodes: 128,
        replication: 3,
        incarnation: 10,
        held: Held::default(),
        ended_epoch: 0,
    }
}
