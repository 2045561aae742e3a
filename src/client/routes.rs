//! The routing table: which members serve a key, in order. Made of what a node tells, which may be anything. Never asks. Tested below.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::level::Level;
use crate::base::slot::{PARTITIONS, Partition};
use crate::cluster::membership::{ADDRESS_BYTES_MAX, MEMBERS_MAX, TOMBSTONES_MAX};
use crate::protocol::native::Routes;

/// A node by its address: what it was given as, or advertises.
pub(super) type Address = Arc<str>;

/// Whom to ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) mark: u64,
    pub(super) epoch: u64,
    pub(super) level: Level,
    pub(super) value_bytes_max: usize,
    members: Vec<Address>,
    serving: Vec<SmallVec<[u16; 4]>>,
}

impl Table {
    /// What a node told, if it makes a table.
    pub(super) fn of(told: &Routes<'_>) -> Option<Self> {
        let is_address = |member: &&str| {
            let port = member.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            member.len() <= ADDRESS_BYTES_MAX && matches!(port, Some(Ok(_)))
        };
        let is_place = |place: &u16| usize::from(*place) < told.members.len();
        let is_sound = told.members.len() <= MEMBERS_MAX + TOMBSTONES_MAX
            && told.members.iter().all(is_address)
            && told.serving.len() == usize::from(PARTITIONS)
            && told.serving.iter().flatten().all(is_place);
        is_sound.then(|| Self {
            mark: told.mark,
            epoch: told.epoch,
            level: told.level,
            value_bytes_max: usize::try_from(told.value_bytes_max).unwrap_or(usize::MAX),
            members: told.members.iter().map(|member| Address::from(*member)).collect(),
            serving: told.serving.iter().map(|places| SmallVec::from_slice(places)).collect(),
        })
    }

    /// All members.
    pub(super) fn members(&self) -> &[Address] {
        &self.members
    }

    /// Who serves a partition, its coordinator first.
    pub(super) fn serving(&self, partition: Partition) -> impl Iterator<Item = &Address> {
        let places = self.serving.get(partition.index()).into_iter().flatten();
        places.filter_map(|place| self.members.get(usize::from(*place)))
    }

    /// Whom to ask for a partition: the first who serves it and is not passed over.
    pub(super) fn choose(&self, partition: Partition, is_avoided: impl Fn(&str) -> bool) -> Option<&Address> {
        self.serving(partition).find(|member| !is_avoided(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(serving: Vec<Vec<u16>>) -> Routes<'static> {
        Routes { mark: 1, epoch: 2, level: Level::One, value_bytes_max: 9, members: vec!["a:1", "b:2", "c:3"], serving }
    }

    fn everywhere(serving: &[u16]) -> Vec<Vec<u16>> {
        vec![serving.to_vec(); usize::from(PARTITIONS)]
    }

    #[test]
    fn the_first_who_serves_and_is_not_passed_over_is_asked() {
        let table = Table::of(&told(everywhere(&[2, 0]))).unwrap();
        let choose = |avoided: &[&str]| table.choose(Partition(7), |member| avoided.contains(&member)).map(|a| &**a);
        assert_eq!(choose(&[]), Some("c:3"));
        assert_eq!(choose(&["c:3", "b:2"]), Some("a:1"));
        assert_eq!(choose(&["c:3", "a:1"]), None, "b does not serve it");
        assert_eq!(Table::default().choose(Partition(7), |_| false), None);
    }

    #[test]
    fn what_makes_no_table_is_refused() {
        assert!(Table::of(&told(everywhere(&[0, 1, 2]))).is_some());
        assert!(Table::of(&told(everywhere(&[]))).is_some());
        assert_eq!(Table::of(&told(everywhere(&[3]))), None);
        assert_eq!(Table::of(&told(vec![vec![0]; 1023])), None);
        for member in ["", "a", "a:", "a:70000", &format!("{}:1", "x".repeat(ADDRESS_BYTES_MAX))] {
            assert_eq!(Table::of(&Routes { members: vec![member], ..told(everywhere(&[])) }), None, "{member}");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_serves_and_nobody_before_was_free(
            serving in prop::collection::vec(prop::collection::vec(0u16..3, 0..4), usize::from(PARTITIONS)),
            partition in 0..PARTITIONS,
            avoided in any::<[bool; 3]>(),
        ) {
            let (told, names) = (told(serving), ["a:1", "b:2", "c:3"]);
            let table = Table::of(&told).unwrap();
            let is_avoided = |member: &str| names.iter().zip(avoided).any(|(name, avoided)| *name == member && avoided);
            let chosen = table.choose(Partition(partition), is_avoided).map(|member| member.to_string());
            let places = &told.serving[usize::from(partition)];
            let expected = places.iter().find(|place| !avoided[usize::from(**place)]);
            prop_assert_eq!(chosen, expected.map(|place| names[usize::from(*place)].to_owned()));
        }
    }
}
